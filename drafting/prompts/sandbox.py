"""Jinja templates that can do no harm: the sandbox in which those of `prompt.json` and of tokenizers are rendered.

Invariant: a template ends. Its loops and calls, the text that it writes and whatever it makes on the way are bounded, and it reaches no
attribute that begins with an underscore. Its settings are those with which transformers renders chat templates, so that a template gives
the same text in both; but the line break at the end of a template of `prompt.json` is kept, for models are trained with it.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

from jinja2 import TemplateRuntimeError, Undefined, nodes, pass_environment
from jinja2.exceptions import UndefinedError
from jinja2.filters import do_sum, make_attrgetter
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from drafting.prompts.bounds import (
    MAX_STEPS,
    Endless,
    Steps,
    bounded,
    check_call,
    check_filled,
    check_operands,
    comparable,
    concat,
    copied,
    joined,
    listed,
    make,
    sized,
    written,
)
from drafting.prompts.view import NoSuchName, NoValue, SaidError, View

STEP, CONCAT, SIZED, COMPARABLE = "step_", "concat_", "copied_", "comparable_"
# Whose outcome is random, or that take much longer than their texts are long.
_OTHER_FILTERS = ("pprint", "random", "urlize", "wordwrap")
_COMPARISONS = ("eq", "equalto", "==", "ne", "!=", "lt", "lessthan", "<", "le", "<=", "gt", "greaterthan", ">", "ge", ">=", "in")
# Which do something to each entry of a list as it is taken.
_WALKS = ("map", "reject", "rejectattr", "select", "selectattr")
# Which look up what they are given.
_LOOK_UPS = ("filter", "test")
_OTHER_METHODS = ("decode", "encode", "expandtabs", "maketrans", "striptags", "to_bytes", "translate")


class Unknown(Undefined):
    """A value that is not known: false in a test, and nothing where it would be written."""

    __slots__ = ()

    def __init__(
        self, hint: str | None = None, obj: Any = missing, name: str | None = None, exc: type[TemplateRuntimeError] = UndefinedError
    ) -> None:
        """See `Undefined`: without a hint and an object, the name is a variable's, which stands in the template."""
        if hint is None and obj is missing:
            hint, exc = f"there is no {name}, and the template has no default for it", NoValue
        super().__init__(hint, obj, name, exc)


class Missing(Unknown):
    """A value that is not known: false in a test, and an error where it would be written."""

    __slots__ = ()

    def _fail(self, *_: Any) -> NoReturn:
        self._fail_with_undefined_error()

    __str__ = __iter__ = __len__ = _fail


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template.

    Attributes:
        said: names and texts that stand in it, which sentences may quote; all others may be a person's.
    """

    concat = staticmethod(joined)
    intercepted_binops = frozenset(("*", "**", "+", "%"))

    def __init__(self, *, is_chat: bool) -> None:
        """`is_chat` for templates of tokenizers, for which transformers writes nothing for what is missing, nor a line break at the end."""
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=not is_chat,
            extensions=["jinja2.ext.loopcontrols"],
            undefined=Unknown if is_chat else Missing,
            finalize=written,
        )
        self.said: frozenset[str] = frozenset()
        filters = self.filters | {"tojson": _to_json, "bucket": _bucket, "join": _join, "string": written, "sum": _sum}
        filters |= {name: _counting(filters[name]) for name in _WALKS}
        self.filters = {name: bounded(name, function) for name, function in filters.items() if name not in _OTHER_FILTERS}
        self.filters |= {STEP: Steps.count, SIZED: copied, COMPARABLE: comparable}
        tests: Mapping[str, Any] = self.tests
        self.tests |= {name: bounded(name, test) for name, test in tests.items() if name in (*_COMPARISONS, *_LOOK_UPS)}
        del self.globals["lipsum"]
        self.globals["raise_exception"] = self._raise
        self.globals["range"] = _range
        if is_chat:
            self.globals["strftime_now"] = _strftime_now

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An attribute as a template reads it."""
        return self._field(obj, attribute) if isinstance(obj, View) else super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An entry as a template reads it."""
        argument = comparable(argument)
        return self._field(obj, str(argument)) if isinstance(obj, View) else super().getitem(obj, argument)

    def _field(self, view: View, name: str) -> Any:
        try:
            value = view.look_up(name)
        except NoSuchName as error:
            if name in self.said:
                raise
            raise TemplateRuntimeError(str(error)) from None
        if value is not None:
            return value
        if name in self.said:
            return self.undefined(f"there is no {view.describe(name)}", name=name, exc=NoValue)
        return self.undefined("there is no such value", name=name)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refuse an attribute that a template must not reach, at once, not when it would be written."""
        raise NoSuchName(f"the attribute {repr(attribute) if attribute in self.said else 'that it names'} is out of reach")

    def _raise(self, message: Any) -> NoReturn:
        """Refuse what a template is given; templates call it."""
        raise (SaidError if isinstance(message, str) and message in self.said else TemplateRuntimeError)(message)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute what is not too large to be computed."""
        check_operands(operator, left, right)
        return copied(super().call_binop(context, operator, left, right))

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what is safe to be called."""
        if not callable(function):
            raise NoSuchName("it calls a value as if it were a function: a field is read as user.NAME, or user['NAME']")
        owner = getattr(function, "__self__", None)
        if isinstance(owner, str | bytes):
            args = tuple(map(listed, args))
            check_call(owner, function.__name__, (*args, *kwargs.values()))
        elif not isinstance(function, Macro) and function is not concat:
            # It may compare or look up what it is given; a template's own macros measure what they do.
            args = tuple(map(comparable, args))
        return sized(super().call(context, function, *args, **kwargs))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """True for what a template may reach."""
        return attr not in _OTHER_METHODS and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Any:
        """Let texts be formatted without wide or many fields."""
        if (fill := super().wrap_str_format(value)) is None:
            return None

        def filled(*args: Any, **kwargs: Any) -> Any:
            check_filled(str(value.__self__), (*args, *kwargs.values()))
            return fill(*args, **kwargs)

        return filled


def count_steps(tree: nodes.Template, sandbox: Sandbox) -> None:
    """Let a template count its steps, and measure the texts that it joins by `~`, what it cuts out, compares and has as keys."""

    def call(name: str, arguments: list[nodes.Expr], line: int) -> nodes.Call:
        return nodes.Call(nodes.Name(name, "load", lineno=line), arguments, [], None, None, lineno=line)

    blocks: list[nodes.For | nodes.Macro | nodes.CallBlock] = [*tree.find_all(nodes.For), *tree.find_all(nodes.Macro)]
    for block in [*blocks, *tree.find_all(nodes.CallBlock)]:
        # A filter is called as it is; a function would be asked first whether it is safe.
        step = nodes.Filter(nodes.Name(STEP, "load", lineno=block.lineno), STEP, [], [], None, None, lineno=block.lineno)
        block.body.insert(0, nodes.ExprStmt(step, lineno=block.lineno))
    for texts in list(tree.find_all(nodes.Concat)):
        texts.nodes = [call(CONCAT, texts.nodes, texts.lineno)]
    comparisons: list[nodes.Compare | nodes.Operand] = [*tree.find_all(nodes.Compare), *tree.find_all(nodes.Operand)]
    for compared in comparisons:
        compared.expr = nodes.Filter(compared.expr, COMPARABLE, [], [], None, None, lineno=compared.lineno)
    for entry in list(tree.find_all(nodes.Pair)):
        if not isinstance(entry.key, nodes.Const):
            entry.key = nodes.Filter(entry.key, COMPARABLE, [], [], None, None, lineno=entry.lineno)
    for cut in list(tree.find_all(nodes.Getitem)):
        if isinstance(cut.arg, nodes.Slice):
            # Jinja cuts without asking the sandbox.
            part = nodes.Getitem(cut.node, cut.arg, "load", lineno=cut.lineno)
            cut.node = nodes.Filter(part, SIZED, [], [], None, None, lineno=cut.lineno)
            cut.arg = nodes.Slice(None, None, None, lineno=cut.lineno)
    tree.set_environment(sandbox)


def _counting(walk: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that counts the entries that it goes through, for what it does to each may make nothing and takes time all the same."""

    @wraps(walk)
    def counting(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        # Nothing is done to what is false, as what is missing is.
        return walk(context, _counted(value) if value else value, *args, **kwargs)

    return counting


def _counted(entries: Iterable[Any]) -> Iterator[Any]:
    for entry in entries:
        make(1)
        yield entry


@pass_environment
def _join(sandbox: Sandbox, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    """As Jinja has it, but measured before it is made."""
    entries = value if attribute is None else map(make_attrgetter(sandbox, attribute), value)
    return joined(map(written, entries), written(d))


@pass_environment
def _sum(sandbox: Sandbox, value: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    """As Jinja has it, of numbers."""
    if not isinstance(start, int | float):
        raise NoSuchName("sum adds numbers")
    return do_sum(sandbox, value, attribute, start)


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MAX_STEPS:
        raise Endless(f"it goes on for more than {MAX_STEPS:,} turns of its loops")
    return numbers


def _bucket(text: Any, buckets: int) -> int:
    """The bucket of a text, the same everywhere: the CRC-32 of its UTF-8, modulo their number."""
    return zlib.crc32(str(text).encode()) % buckets


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    """As transformers has it: Jinja's own is meant for HTML."""
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, default=_no_json)
    return joined(encoder.iterencode(value))


def _no_json(value: Any) -> Any:
    if isinstance(value, Missing):
        return str(value)  # which says what is missing
    raise NoSuchName(f"JSON can't hold {value.subject if isinstance(value, View) else f'a {type(value).__name__}'}: name its fields")


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
