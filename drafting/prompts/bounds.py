"""Limits on what a template does and makes in one rendering, and measures of values before they are made.

Invariant: a text or a list is measured before it is made, with all that lies in it, and all that one rendering makes is counted together: a
template that keeps what it makes takes no more memory than that.
"""

import math
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set, ValuesView
from contextvars import ContextVar
from functools import wraps
from typing import Any

from jinja2 import Undefined

from drafting.prompts.view import NoSuchName, SaidError, View

MAX_STEPS = 50_000
MAX_SECONDS = 1.0
# The clock is asked once in so many steps, and once in as many letters as a width may have.
_STEPS_BY_THE_CLOCK = 16
# Letters of a text or entries of a list, and bits of a number, that a template makes on its way.
MAX_SIZE = 1_000_000
MAX_BITS = 4_000
# Letters and entries that all texts and lists of one rendering may have: they are written anew whenever one grows.
MAX_MADE = 100_000_000
# A width, an indent or a number of digits; and the sizes of all that goes into one call, multiplied.
MAX_WIDTH = 10_000
MAX_PRODUCT = 100_000_000
# A field of a text that is filled in counts as so many letters at least, for what it shows of a view is not known before.
_FIELD = 1_000
# Letters that take as much memory as an entry of a list that is made, and of one that is copied.
_ENTRY, _COPIED_ENTRY = 50, 8
# Widths of six digits, and widths that are values themselves: of `%`, and of `format`, where a brace lies in a field.
_WIDE_FORMAT = re.compile(r"\d{6}|%(\([^)]*\))?[-#0 +]*[\d.]*\*|(?<!\{)(\{\{)*\{[^{}]*:[^{}]*\{")
_WIDTH = re.compile(r"(?:%(?:\([^)]*\))?|:).?[-+#0 <>=^,_.]*(\d+)\.?(\d*)")
_WIDE_FILTERS = ("batch", "center", "indent", "round", "slice", "tojson")
# These go through a text again and again.
_SQUARE_FILTERS = ("striptags",)
# These take entries of a list as they are; all others make a text of what they are given.
_LIST_FILTERS = {
    *("attr", "batch", "count", "d", "default", "first", "items", "join", "last", "length", "list", "map"),
    *("reject", "rejectattr", "reverse", "select", "selectattr", "slice", "sum"),
}


class Endless(SaidError):
    """A template does more than any prompt needs."""


class Late(Endless):
    """A template takes more time than a prompt has, which depends on the machine."""


class Steps:
    """A budget of steps, letters and time for one rendering, or for several together."""

    def __init__(self, end: float | None = None) -> None:
        """`end` is the processor time of this thread, in seconds, at which it must be done, where one prompt has several of these."""
        self._left = MAX_STEPS
        self._letters, self._made = MAX_MADE, 0
        self._end = time.thread_time() + MAX_SECONDS if end is None else end

    def count(self) -> None:
        """Count one turn of a loop, or one call of a macro."""
        self._left -= 1
        if self._left < 0:
            raise Endless(f"it goes on for more than {MAX_STEPS:,} turns of its loops")
        if not self._left % _STEPS_BY_THE_CLOCK:
            self._check_time()

    def make(self, size: int) -> None:
        """Count a text or a list of so many letters or entries."""
        self._letters -= size
        if self._letters < 0:
            raise Endless(f"it makes more than {MAX_MADE:,} letters on its way")
        self._made += size
        if self._made > MAX_WIDTH:
            self._made = 0
            self._check_time()

    def _check_time(self) -> None:
        if time.thread_time() > self._end:
            raise Late(f"it takes more than {MAX_SECONDS:g} s")


# The steps of the rendering that goes on; None while a template is compiled.
running: ContextVar[Steps | None] = ContextVar("running", default=None)


def letters(value: Any) -> int:
    """About how many letters the text of a value has, with all that lies in it; more than `MAX_SIZE` if it is too large."""
    total, left = 0, [value]
    while left and total <= MAX_SIZE:
        match left.pop():
            case str() | bytes() as text:
                total += len(text)
            case int() as number:
                total += 1 + number.bit_length() // 4
            case Mapping() as mapping:
                total += 2 * len(mapping)
                if total <= MAX_SIZE:
                    left += [*mapping.keys(), *mapping.values()]
            case list() | tuple() | Set() | ValuesView() as entries:
                total += len(entries)
                if total <= MAX_SIZE:
                    left += entries
            case _:
                total += 1
    return total


def written(value: Any) -> str:
    """The text of a value.

    Raises:
        NoSuchName: it has none but the name of its type and its place in memory.
        Endless: it is too long.
    """
    text = value if type(value) is str else _text(value)
    size = len(text)
    if size > MAX_SIZE:
        check_size(size)
    if (steps := running.get()) is not None:
        steps.make(size)
    return text


def _text(value: Any) -> str:
    if not isinstance(value, (str, int, float, View, Undefined)) and value is not None:
        if not isinstance(value, Collection):
            kind = type(value).__name__
            raise NoSuchName(f"what it writes is no text but a {kind}: call a function, join a list, as in history | join(', ')")
        check_size(letters(value))
    return str(value)


def concat(*parts: Any) -> str:
    """Join texts as `~` does."""
    return joined(map(written, parts))


def joined(texts: Iterable[str], separator: str = "") -> str:
    """Join texts that are measured one by one."""
    parts: list[str] = []
    size = 0
    for text in texts:
        size += len(text) + (len(separator) if parts else 0)
        check_size(size)
        parts.append(text)
    make(size)
    return separator.join(parts)


def check_size(size: int) -> None:
    """Let no text have more letters.

    Raises:
        Endless: it has.
    """
    if size > MAX_SIZE:
        raise Endless(f"it makes a text of more than {MAX_SIZE:,} letters")


def make(size: int) -> None:
    """Count what a rendering makes."""
    if (steps := running.get()) is not None:
        steps.make(size)


def sized(value: Any, entry: int = _ENTRY) -> Any:
    """The value itself, if it is not too large.

    Args:
        entry: letters that an entry of a list counts as.
    """
    if isinstance(value, int):
        _check_bits(value.bit_length())
    elif isinstance(value, str | bytes | Sequence | Mapping) and not isinstance(value, range):
        if len(value) > MAX_SIZE:
            raise _too_large()
        make(len(value) * (1 if isinstance(value, str | bytes) else entry))
    return value


def comparable(value: Any) -> Any:
    """The value itself, if it can be compared or looked up in time: lists that lie in each other many times are as large as they look."""
    if isinstance(value, str):
        return value
    if letters(value) > MAX_SIZE:
        raise _too_many()
    return one_by_one(value)


def one_by_one(value: Any) -> Any:
    """An iterator that measures its entries as they are taken; any other value itself."""
    return _measured(value) if isinstance(value, Iterator) else value


def _measured(entries: Iterator[Any]) -> Iterator[Any]:
    size = 0
    for entry in entries:
        size += 1 + letters(entry)
        if size > MAX_SIZE:
            raise _too_many()
        yield entry


def copied(value: Any) -> Any:
    """The result of an operator, if it is not too large."""
    return sized(value, _COPIED_ENTRY)


def check_operands(operator: str, left: Any, right: Any) -> None:
    """Let nothing be computed that is too large."""
    sequences = [len(each) for each in (left, right) if isinstance(each, Sequence)]
    numbers = [each for each in (left, right) if isinstance(each, int)]
    if operator == "*" and sequences and math.prod(sequences + numbers) > MAX_SIZE:
        raise _too_large()
    if operator == "+" and sum(sequences) > MAX_SIZE:
        raise _too_large()
    if operator == "*" and len(numbers) == 2:
        _check_bits(sum(number.bit_length() for number in numbers))
    if operator == "**" and len(numbers) == 2:
        _check_bits(left.bit_length() * right)
    if operator == "%" and isinstance(left, str):
        check_filled(left, right if isinstance(right, tuple) else (right,))


def check_filled(text: str, values: Sequence[Any]) -> None:
    """Let no text be filled in whose fields are wide or many."""
    if _WIDE_FORMAT.search(text):
        raise Endless("it formats a text with a width of six digits or more, or with one that is a value")
    widest = max((int(width) for widths in _WIDTH.findall(text) for width in widths if width), default=0)
    fields = max(text.count("%"), text.count("{"))
    check_size(len(text) + fields * max(_FIELD, widest + max(map(letters, values), default=0)))


def check_call(owner: str | bytes, name: str, arguments: Sequence[Any]) -> None:
    """Let no method of a text make what is too large."""
    check_arguments((owner, *arguments), has_width=True)
    if name == "join":
        check_size(sum(len(owner) * len(each) + letters(each) for each in arguments if isinstance(each, Collection)))


def check_arguments(values: Sequence[Any], *, has_width: bool) -> None:
    """Let nothing be called whose outcome may be as large as its arguments multiplied, as of `replace` or `indent`."""
    sizes = [len(value) for value in values if isinstance(value, str | bytes | list | tuple | dict)]
    if has_width:
        widths = [abs(value) for value in values if isinstance(value, int)]
        if any(width > MAX_WIDTH for width in widths):
            raise Endless(f"it calls something with a width above {MAX_WIDTH:,}")
        sizes += widths
    if math.prod(size for size in sizes if size) > MAX_PRODUCT:
        raise _too_large()


def bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that neither takes nor makes what is too large."""

    @wraps(function)
    def bound(*args: Any, **kwargs: Any) -> Any:
        if name not in _LIST_FILTERS:
            args = tuple(map(one_by_one, args))
        values = (*args, *kwargs.values())
        for value in values:
            # A tuple can be the name of what a filter looks up.
            if name not in _LIST_FILTERS or isinstance(value, tuple):
                check_size(letters(value))
        if name == "format":
            check_filled(str(args[0]), values[1:])
        else:
            check_arguments(values * 2 if name in _SQUARE_FILTERS else values, has_width=name in _WIDE_FILTERS)
        return sized(function(*args, **kwargs))

    return bound


def listed(value: Any) -> Any:
    """The value in a form that can be measured: an iterator as a list."""
    return list(value) if isinstance(value, Iterator) else value


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise Endless(f"it computes a number of more than {MAX_BITS:,} bits")


def _too_large() -> Endless:
    return Endless(f"it makes a text or a list of more than {MAX_SIZE:,} letters or entries")


def _too_many() -> Endless:
    return Endless(f"it compares or looks up what has more than {MAX_SIZE:,} entries")
