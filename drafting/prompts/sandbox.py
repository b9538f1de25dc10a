"""Jinja templates that can do no harm: the sandbox in which those of `prompt.json` and of tokenizers are rendered.

Invariant: a template ends. Its loops and calls, the text that it writes and whatever it makes on the way are bounded, and it reaches no
attribute that begins with an underscore. Its settings are those with which transformers renders chat templates, so that a template gives
the same text in both; but the line break at the end of a template of `prompt.json` is kept, for models are trained with it.
"""

import json
import math
import re
import time
import zlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

from jinja2 import TemplateRuntimeError, Undefined, nodes, pass_environment
from jinja2.exceptions import UndefinedError
from jinja2.filters import do_sum, make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from drafting.prompts.view import NoSuchName, NoValue, SaidError, View

MAX_STEPS = 50_000
MAX_SECONDS = 1.0
# The clock is asked once in so many steps.
_STEPS_BY_THE_CLOCK = 16
# Letters of a text or entries of a list, and bits of a number, that a template makes on its way.
MAX_SIZE = 1_000_000
MAX_BITS = 4_000
# A width, an indent or a number of digits; and the sizes of all that goes into one call, multiplied.
MAX_WIDTH = 10_000
MAX_PRODUCT = 100_000_000
STEP, CONCAT = "step_", "concat_"
_WIDE_FORMAT = re.compile(r"\d{6}")
# Whose outcome is random, or that take much longer than their texts are long.
_OTHER_FILTERS = ("random", "urlize", "wordwrap")
_WIDE_FILTERS = ("batch", "center", "indent", "round", "slice", "tojson")
_OTHER_METHODS = ("expandtabs", "maketrans", "to_bytes", "translate")


class Endless(SaidError):
    """A template does more than any prompt needs."""


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
        self.filters = {name: _bounded(name, function) for name, function in filters.items() if name not in _OTHER_FILTERS}
        self.filters[STEP] = Steps.count
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

    def _raise(self, message: str) -> NoReturn:
        """What a template calls to refuse what it is given."""
        raise (SaidError if message in self.said else TemplateRuntimeError)(message)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute what is not too large to be computed."""
        _check_operands(operator, left, right)
        return sized(super().call_binop(context, operator, left, right))

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what is safe to be called."""
        if not callable(function):
            raise NoSuchName("it calls a value as if it were a function: a field is read as user.NAME, or user['NAME']")
        owner = getattr(function, "__self__", None)
        if isinstance(owner, str | bytes):
            _check_arguments((owner, *args, *kwargs.values()), has_width=True)
        return sized(super().call(context, function, *args, **kwargs))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """True for what a template may reach."""
        return attr not in _OTHER_METHODS and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Any:
        """Let texts be formatted without wide fields."""
        if isinstance(text := getattr(value, "__self__", None), str) and _WIDE_FORMAT.search(text):
            return None if value.__name__ not in ("format", "format_map") else _too_wide
        return super().wrap_str_format(value)


class Steps:
    """What one rendering may still do."""

    def __init__(self) -> None:
        self._left = MAX_STEPS
        self._end = time.thread_time() + MAX_SECONDS

    def count(self) -> None:
        """Count one turn of a loop, or one call of a macro."""
        self._left -= 1
        if self._left < 0 or (not self._left % _STEPS_BY_THE_CLOCK and time.thread_time() > self._end):
            raise Endless(f"it goes on for more than {MAX_STEPS:,} turns of its loops, or for more than {MAX_SECONDS:g} s")


def count_steps(tree: nodes.Template, sandbox: Sandbox) -> None:
    """Let a template count its steps, and measure the texts that it joins by `~`."""

    def call(name: str, arguments: list[nodes.Expr], line: int) -> nodes.Call:
        return nodes.Call(nodes.Name(name, "load", lineno=line), arguments, [], None, None, lineno=line)

    blocks: list[nodes.For | nodes.Macro | nodes.CallBlock] = [*tree.find_all(nodes.For), *tree.find_all(nodes.Macro)]
    for block in [*blocks, *tree.find_all(nodes.CallBlock)]:
        # A filter is called as it is; a function would be asked first whether it is safe.
        step = nodes.Filter(nodes.Name(STEP, "load", lineno=block.lineno), STEP, [], [], None, None, lineno=block.lineno)
        block.body.insert(0, nodes.ExprStmt(step, lineno=block.lineno))
    for joined in list(tree.find_all(nodes.Concat)):
        joined.nodes = [call(CONCAT, joined.nodes, joined.lineno)]
    tree.set_environment(sandbox)


def written(value: Any) -> str:
    """The text of a value.

    Raises:
        NoSuchName: it has none but the name of its type and its place in memory.
    """
    if not isinstance(value, str | int | float | Undefined | View | Collection) and value is not None:
        kind = type(value).__name__
        raise NoSuchName(f"what it writes is no text but a {kind}: call a function, join a list, as in history | join(', ')")
    return str(value)


def concat(*parts: Any) -> str:
    """Join texts as `~` does."""
    texts = [written(part) for part in parts]
    if sum(map(len, texts)) > MAX_SIZE:
        raise Endless(f"it makes a text of more than {MAX_SIZE:,} letters")
    return "".join(texts)


def sized(value: Any) -> Any:
    """The value itself, if it is not too large."""
    if isinstance(value, str | bytes | Sequence | Mapping) and not isinstance(value, range) and len(value) > MAX_SIZE:
        raise Endless(f"it makes a text or a list of more than {MAX_SIZE:,} letters or entries")
    return value


def _check_operands(operator: str, left: Any, right: Any) -> None:
    if operator == "*":
        size = math.prod(len(each) if isinstance(each, Sequence) else each for each in (left, right) if isinstance(each, Sequence | int))
        if (isinstance(left, Sequence) or isinstance(right, Sequence)) and size > MAX_SIZE:
            raise Endless(f"it makes a text or a list of more than {MAX_SIZE:,} letters or entries")
    elif operator == "**" and isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_BITS:
        raise Endless(f"it computes a number of more than {MAX_BITS:,} bits")
    elif operator == "%" and isinstance(left, str) and _WIDE_FORMAT.search(left):
        _too_wide()


def _check_arguments(values: Sequence[Any], *, has_width: bool) -> None:
    """Let nothing be called whose outcome may be as large as its arguments multiplied, as of `replace` or `indent`."""
    sizes = [len(value) for value in values if isinstance(value, str | bytes | list | tuple | dict)]
    if has_width:
        widths = [abs(value) for value in values if isinstance(value, int)]
        if any(width > MAX_WIDTH for width in widths):
            raise Endless(f"it calls something with a width above {MAX_WIDTH:,}")
        sizes += widths
    if math.prod(size for size in sizes if size) > MAX_PRODUCT:
        raise Endless(f"it makes a text or a list of more than {MAX_SIZE:,} letters or entries")


def _too_wide(*_: Any, **__: Any) -> NoReturn:
    raise Endless("it formats a text with a width of six digits or more")


def _bounded(name: str, function: Any) -> Any:
    """A filter that neither takes nor makes what is too large."""

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _check_arguments((*args, *kwargs.values()), has_width=name in _WIDE_FILTERS)
        return sized(function(*args, **kwargs))

    return bounded


@pass_environment
def _join(sandbox: Sandbox, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    """As Jinja has it, but measured before it is made."""
    parts = [written(each) for each in (value if attribute is None else map(make_attrgetter(sandbox, attribute), value))]
    if sum(map(len, parts)) + len(d) * len(parts) > MAX_SIZE:
        raise Endless(f"it makes a text of more than {MAX_SIZE:,} letters")
    return d.join(parts)


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
    text: str = sized(
        json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, default=_no_json)
    )
    return text


def _no_json(value: Any) -> Any:
    if isinstance(value, Missing):
        return str(value)  # which says what is missing
    raise NoSuchName(f"JSON can't hold {value.subject if isinstance(value, View) else f'a {type(value).__name__}'}: name its fields")


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
