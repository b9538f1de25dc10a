"""Filter expressions: boolean expressions over the attributes of a catalog's items.

    country = "DE" and (price < 20 or tags has "sale") and not brand in ["x", "y"] and stock

An attribute alone is true for items that have it with a value other than false. Comparisons are false for items without the attribute, and
for values of another type. Texts and numbers are written as in JSON.

Invariant: a comparison is evaluated once per distinct value of its attribute. An expression that is malformed, costs too much, or names an
attribute that the catalog does not have, is refused with a sentence; it is never treated as an empty filter. What an expression may cost is
bounded while it is parsed, so neither parsing nor evaluation goes deeper than `MAX_DEPTH`.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np

from drafting.array_types import BoolArray
from drafting.catalog.catalog import Catalog
from drafting.catalog.column_values import ColumnValues, Constant
from drafting.catalog.json_values import listed, unusable
from drafting.errors import quoted
from drafting.trie.item_set import ItemSet, intersection, union

MAX_CHARACTERS = 5_000
MAX_COMPARISONS = 50
MAX_LISTED = 1_000
MAX_DEPTH = 32

# Texts and numbers are JSON's own, in ASCII: what these patterns match, `json.loads` reads. A number ends where no name could go on.
_SPACES = " \t\r\n"
_TOKEN = re.compile(
    rf"""[{_SPACES}]*+ (?:
      (?P<name>   [^\W\d][\w.-]* )
    | (?P<number> -?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.-]) )
    | (?P<text>   "(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{{4}}))*+" )
    | (?P<sign>   [!<>]=|[=<>] )
    | (?P<mark>   [()\[\],] )
    )""",
    re.VERBOSE,
)
_WORDS = {"and", "or", "not", "in", "has", "true", "false"}
_LONGEST_NUMBER = 400


class ExpressionError(ValueError):
    """An expression cannot be used; the message is a sentence with the position, counted in characters from 1."""


class Token(NamedTuple):
    """A piece of an expression; behind the last one comes one without text, of the kind `end`."""

    kind: str
    text: str
    start: int


@dataclass(frozen=True)
class Comparison:
    """A test of one attribute.

    Attributes:
        name: the attribute, as it stands in the expression.
        test: the distinct values that pass, `[values]` bool.
        sign: how it compares; empty for an attribute alone.
        constants: with what.
    """

    name: Token
    test: Callable[[ColumnValues], BoolArray]
    sign: str = ""
    constants: Sequence[Constant] = ()

    def check(self, values: ColumnValues) -> None:
        """Refuse a comparison with what no value is, which is a mistake.

        Raises:
            ExpressionError: no value is of the kind of any constant.
        """
        wanted = {"lists"} if self.sign == "has" else {_kind(constant) for constant in self.constants}
        if not self.sign or not wanted or not values.kinds or wanted & values.kinds:
            return
        there = listed(sorted(values.kinds))
        if self.sign == "has":
            raise self._mistake(f"has looks into lists, but the values of {self.name.text} are {there}; compare them with =")
        advice = "look into lists with has" if "lists" in values.kinds else "texts are written in quotes, numbers and booleans without"
        raise self._mistake(f"{self.name.text} is compared with {listed(sorted(wanted))}, but its values are {there}; {advice}")

    def _mistake(self, reason: str) -> ExpressionError:
        return ExpressionError(f"At character {self.name.start + 1}, {reason}.")


@dataclass(frozen=True)
class Combination:
    """Conditions combined.

    Attributes:
        combine: the items of the whole from those of the parts, two at a time; or from those of the only part.
    """

    combine: Callable[..., ItemSet]
    parts: Sequence["Condition"]


Condition = Comparison | Combination


def items_where(expression: str, catalog: Catalog, *, checks_kinds: bool = False) -> ItemSet:
    """The items of a catalog for which an expression is true.

    Args:
        checks_kinds: True to refuse comparisons with what no value of their attribute is, such as of numbers with a text.

    Raises:
        ExpressionError: the expression is malformed or costs too much, or names an attribute that no item of the catalog has.
    """
    return _items(_Parser(expression).parse(), catalog, checks_kinds)


class _Parser:
    """Reads one expression from left to right."""

    def __init__(self, expression: str) -> None:
        if len(expression) > MAX_CHARACTERS:
            raise ExpressionError(f"The expression has {len(expression):,} characters, but {MAX_CHARACTERS:,} are the most.")
        self._expression = expression
        self._comparisons = 0
        self._depth = 0
        self._next = self._token_at(0)

    def parse(self) -> Condition:
        """The condition that the whole expression states."""
        condition = self._either()
        if self._next.kind != "end":
            raise self._senseless(self._next.start)
        return condition

    def _either(self) -> Condition:
        return self._chain("or", self._both, lambda left, right: union([left, right]))

    def _both(self) -> Condition:
        return self._chain("and", self._one, lambda left, right: intersection([left, right]))

    def _chain(self, word: str, part: Callable[[], Condition], combine: Callable[[ItemSet, ItemSet], ItemSet]) -> Condition:
        parts = [part()]
        while self._takes(word):
            parts.append(part())
        return Combination(combine, parts) if len(parts) > 1 else parts[0]

    def _one(self) -> Condition:
        start = self._next.start
        if self._takes("not"):
            with self._deeper(start):
                return Combination(lambda items: items.complement, [self._one()])
        if self._takes("("):
            with self._deeper(start):
                condition = self._either()
            self._expect(")")
            return condition
        return self._comparison()

    def _comparison(self) -> Condition:
        name = self._next
        if name.kind != "name" or name.text in _WORDS:
            raise self._senseless(name.start)
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise ExpressionError(
                f"The expression has more than {MAX_COMPARISONS} comparisons (character {name.start + 1}), which are the most; many values "
                'of one attribute fit into a list, as in brand in ["x", "y"].'
            )
        self._advance()
        if (sign := self._next).kind == "sign":
            self._advance()
            constant = self._constant()
            return Comparison(name, _test(sign.text, constant), sign.text, [constant])
        if self._takes("in"):
            constants = list(self._constants())
            return Comparison(name, lambda values: values.among(constants), "in", constants)
        if self._takes("has"):
            constant = self._constant()
            return Comparison(name, lambda values: values.holding(constant), "has", [constant])
        return Comparison(name, ColumnValues.present)

    def _constants(self) -> Iterator[Constant]:
        self._expect("[")
        if self._takes("]"):
            return
        for _ in range(MAX_LISTED):
            yield self._constant()
            if self._takes("]"):
                return
            self._expect(",")
        raise ExpressionError(f"The list has more than {MAX_LISTED:,} values at character {self._next.start + 1}, which are the most.")

    def _constant(self) -> Constant:
        token = self._next
        if token.kind not in ("number", "text") and token.text not in ("true", "false"):
            raise self._senseless(token.start)
        self._advance()
        # Python does not convert numbers of thousands of digits at all.
        value: Constant = 10**_LONGEST_NUMBER if token.kind == "number" and len(token.text) > _LONGEST_NUMBER else json.loads(token.text)
        if reason := unusable(value):
            raise ExpressionError(f"The value at character {token.start + 1} {reason}.")
        return value

    @contextmanager
    def _deeper(self, start: int) -> Iterator[None]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"At character {start + 1} the expression is nested more than {MAX_DEPTH} levels deep.")
        yield
        self._depth -= 1

    def _takes(self, text: str) -> bool:
        """Go on if the next token is this word or mark."""
        if self._next.text != text:
            return False
        self._advance()
        return True

    def _expect(self, text: str) -> None:
        if not self._takes(text):
            raise self._senseless(self._next.start)

    def _advance(self) -> None:
        self._next = self._token_at(self._next.start + len(self._next.text))

    def _token_at(self, place: int) -> Token:
        if (found := _TOKEN.match(self._expression, place)) is not None:
            kind = found.lastgroup or ""
            return Token(kind, found[kind], found.start(kind))
        start = len(self._expression) - len(self._expression[place:].lstrip(_SPACES))
        if start < len(self._expression):
            raise self._senseless(start)
        return Token("end", "", start)

    def _senseless(self, start: int) -> ExpressionError:
        if start >= len(self._expression):
            return ExpressionError(f"The expression ends at character {len(self._expression.rstrip())}, where more is expected.")
        return ExpressionError(f"The expression makes no sense at character {start + 1}: {self._expression[start : start + 20]!r}.")


def _test(sign: str, constant: Constant) -> Callable[[ColumnValues], BoolArray]:
    match sign:
        case "=":
            return lambda values: values.among([constant])
        case "!=":
            return lambda values: ~values.among([constant])
    return lambda values: values.ordered(sign, constant)


def _kind(constant: Constant) -> str:
    return "booleans" if isinstance(constant, bool) else "texts" if isinstance(constant, str) else "numbers"


def _items(condition: Condition, catalog: Catalog, checks_kinds: bool) -> ItemSet:
    if isinstance(condition, Combination):
        parts = (_items(part, catalog, checks_kinds) for part in condition.parts)
        return condition.combine(next(parts)) if len(condition.parts) == 1 else reduce(condition.combine, parts)
    name = condition.name
    if (column := catalog.attributes.get(name.text)) is None:
        known = listed(catalog.attributes)
        raise ExpressionError(f"There is no attribute {quoted(name.text)} (character {name.start + 1}); the catalog has {known}.")
    if checks_kinds:
        condition.check(column.decoded)
    # Items without a value have the code -1, the last place.
    passed = np.append(condition.test(column.decoded), False)
    return ItemSet.of(passed[column.codes])
