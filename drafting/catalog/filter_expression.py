"""Filter expressions: boolean expressions over the attributes of a catalog's items.

    country = "DE" and (price < 20 or tags has "sale") and not brand in ["x", "y"] and stock

An attribute alone is true for items that have it with a value other than false. Comparisons are false for items without the attribute, and
for values of another type.

Invariant: a comparison is evaluated once per distinct value of its attribute. An expression that is malformed, or names an attribute that
the catalog does not have, is refused with its position; it is never treated as an empty filter.
"""

import json
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from drafting.array_types import BoolArray
from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.catalog import Catalog
from drafting.trie.item_set import ItemSet

_GRAMMAR = r"""
?start: either
?either: both ("or" both)*
?both: one ("and" one)*
?one: "not" one -> negation
    | "(" either ")"
    | NAME COMPARISON value -> comparison
    | NAME "in" list -> membership
    | NAME "has" value -> containment
    | NAME -> presence
list: "[" [value ("," value)*] "]"
value: STRING | NUMBER | CONSTANT
NAME: /(?!(and|or|not|in|has|true|false)\b)[^\W\d][\w.-]*/
COMPARISON: "=" | "!=" | "<=" | ">=" | "<" | ">"
STRING: /"([^"\\]|\\.)*"/
NUMBER: /-?\d+(\.\d+)?([eE][+-]?\d+)?/
CONSTANT: "true" | "false"
%import common.WS
%ignore WS
"""
_PARSER = Lark(_GRAMMAR, parser="lalr", propagate_positions=True)
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class ExpressionError(ValueError):
    """An expression cannot be used; the message is a sentence with the position, counted in characters from 1."""


def items_where(expression: str, catalog: Catalog) -> ItemSet:
    """The items of a catalog for which an expression is true.

    Raises:
        ExpressionError: the expression is malformed, or names an attribute that no item of the catalog has.
    """
    try:
        tree = _PARSER.parse(expression)
    except UnexpectedInput as error:
        raise ExpressionError(_complaint(expression, error)) from error
    return ItemSet.of(_members(tree, catalog))


def _complaint(expression: str, error: UnexpectedInput) -> str:
    ended = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    if ended or not isinstance(error, UnexpectedCharacters | UnexpectedToken):
        return f"The expression ends at character {len(expression.rstrip())}, where more is expected."
    start = error.pos_in_stream or 0
    return f"The expression makes no sense at character {start + 1}: {expression[start : start + 20]!r}."


def _members(tree: "Tree[Token]", catalog: Catalog) -> BoolArray:
    """`[items]` bool, True where the expression is true."""
    match tree.data:
        case "either":
            return reduce(np.logical_or, [_members(_subtree(child), catalog) for child in tree.children])
        case "both":
            return reduce(np.logical_and, [_members(_subtree(child), catalog) for child in tree.children])
        case "negation":
            return ~_members(_subtree(tree.children[0]), catalog)
    name = tree.children[0]
    assert isinstance(name, Token)
    if (column := catalog.attributes.get(str(name))) is None:
        known = ", ".join(sorted(catalog.attributes)) or "none"
        raise ExpressionError(f"There is no attribute {str(name)!r} (character {(name.start_pos or 0) + 1}); the catalog has {known}.")
    return _spread(_test(tree), column)


def _test(tree: "Tree[Token]") -> Callable[[Any], bool]:
    """The test of a comparison on one value."""
    match tree.data:
        case "presence":
            return lambda value: value is not False
        case "membership":
            choices = [_value(_subtree(each)) for each in _subtree(tree.children[1]).children if each is not None]
            return lambda value: any(_same(value, choice) for choice in choices)
        case "containment":
            wanted = _value(_subtree(tree.children[1]))
            return lambda value: isinstance(value, list) and any(_same(each, wanted) for each in value)
    sign, wanted = str(tree.children[1]), _value(_subtree(tree.children[2]))
    if sign in ("=", "!="):
        return lambda value: _same(value, wanted) == (sign == "=")
    return lambda value: _kind(value) == _kind(wanted) and _kind(value) in ("text", "number") and _ORDERS[sign](value, wanted)


def _spread(test: Callable[[Any], bool], column: AttributeColumn) -> BoolArray:
    """`[items]` bool: test the distinct values and look up each item's result; False for items without a value."""
    results = np.zeros(len(column.values) + 1, bool)
    results[:-1] = [test(json.loads(text)) for text in column.values]
    members: BoolArray = results[column.codes]
    return members


def _value(tree: "Tree[Token]") -> Any:
    return json.loads(str(tree.children[0]))


def _same(left: Any, right: Any) -> bool:
    return _kind(left) == _kind(right) and bool(left == right)


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "truth"
        case int() | float():
            return "number"
        case str():
            return "text"
    return "other"


def _subtree(child: "Tree[Token] | Token") -> "Tree[Token]":
    assert isinstance(child, Tree)
    return child
