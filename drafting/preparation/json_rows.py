"""Tables of JSON: an object a line, or one array of objects; and lines of Python literals, as Amazon's data of 2014 has them.

Invariant: lines are decoded many at a time into the wanted fields alone; only where one is no JSON are its neighbours looked at one by one.
Either way, a text that UTF-8 can't carry makes its line bad if it is in a wanted field, and is ignored elsewhere: an id with its odd bytes
replaced would be that of another user or item.
"""

import ast
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

import msgspec

from drafting.catalog.json_values import is_encodable
from drafting.errors import InteractionError, quoted
from drafting.preparation.rows import BadLines
from drafting.preparation.sources import BOM, UNREADABLE, head_of, opened
from drafting.undecodable import UNDECODABLE

_BLOCK_BYTES = 4 << 20
_PEEKED_LINES = 200
# Looks at no value.
_NAMED = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ADVICE = "Lines of JSON are UTF-8: convert what is not, such as with iconv -f latin-1 -t utf-8."

# The values of the wanted fields of each object, and the number of the line of each.
Block = tuple[list[tuple[Any, ...]], Sequence[int]]


def field_names(path: Path, most: int | None = _PEEKED_LINES) -> tuple[str, ...]:
    """The names of the fields of the first objects, in the order in which they are met.

    Args:
        most: so many lines are read; None for all.

    Raises:
        InteractionError: the file can't be read.
    """
    names: dict[str, None] = {}
    try:
        with opened(path) as file:
            objects = map(_names, _array(path, file)) if _is_array(path) else map(_names_in, islice(file, most))
            for told in objects:
                # In literals of Python, names may be anything; in JSON, halves of characters.
                names.update(dict.fromkeys(name for name in told if isinstance(name, str) and is_encodable(name)))
    except UNREADABLE as error:
        raise InteractionError(f"{path} cannot be read: {error}.") from error
    return tuple(names)


def _names_in(line: bytes) -> Iterable[Any]:
    """The names of the fields of a line; none of one that is no object."""
    try:
        return _NAMED.decode(line)
    except UNDECODABLE:
        return _names(_loaded(line))


def _names(value: Any) -> Iterable[Any]:
    return value if isinstance(value, dict) else ()


def read_json(path: Path, wanted: Sequence[str], bad: BadLines, on_bytes: Callable[[int], object]) -> Iterator[Block]:
    """Read the wanted fields of all objects; those that an object lacks are None.

    Raises:
        InteractionError: the file can't be read to its end.
    """
    fields = [(f"field_{number}", Any, None) for number in range(len(wanted))]
    shape: Any = None
    # Quotation marks and the like are possible in names, and no field may be called so: such lines are decoded one by one.
    with suppress(ValueError):
        shape = msgspec.defstruct("Line", fields, rename=dict(zip((name for name, _, _ in fields), wanted, strict=True)))
    with path.open("rb") as raw:
        stream = opened(path, raw)
        try:
            if _is_array(path):
                yield _objects(path, ((place, value, b"") for place, value in enumerate(_array(path, stream), start=1)), wanted, bad)
                return
            first = 1
            for block in _blocks(stream):
                number = block.count(b"\n") + (not block.endswith(b"\n"))
                yield _decoded(path, block, first, shape, wanted, bad)
                first += number
                on_bytes(raw.tell())
        except UNREADABLE as error:
            raise InteractionError(f"{path} cannot be read: {error}.") from error


def _decoded(path: Path, block: bytes, first: int, shape: Any, wanted: Sequence[str], bad: BadLines) -> Block:
    """The objects of some lines, of which the first has the number `first`."""
    try:
        found = [] if shape is None else msgspec.json.Decoder(shape).decode_lines(block)
        if len(found) == block.count(b"\n") + (not block.endswith(b"\n")):
            return list(map(msgspec.structs.astuple, found)), range(first, first + len(found))
    except UNDECODABLE:
        pass
    lines = enumerate(block.split(b"\n"), start=first)
    return _objects(path, ((number, _loaded(line), line) for number, line in lines if line.strip()), wanted, bad)


def _objects(path: Path, values: Iterable[tuple[int, Any, bytes]], wanted: Sequence[str], bad: BadLines) -> Block:
    """The objects among values, each of which has a number, and its line where it has one of its own."""
    rows, numbers = [], []
    for number, value, line in values:
        row = tuple(map(value.get, wanted)) if isinstance(value, dict) else None
        if row is not None and _is_text(row):
            rows.append(row)
            numbers.append(number)
        else:
            reason, advice = ("no JSON object", "") if row is None else ("no UTF-8", _ADVICE)
            bad.seen(1)
            bad.add(
                path, number, f"{reason}, {quoted(line.decode(errors='replace').strip())}" if line and bad.names_more else reason, advice
            )
    return rows, numbers


def _is_text(row: tuple[Any, ...]) -> bool:
    """Whether UTF-8 can carry all texts of some values."""
    try:
        json.dumps(row, ensure_ascii=False, skipkeys=True, default=str).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """Pieces of whole lines."""
    rest, is_first = b"", True
    while piece := stream.read(_BLOCK_BYTES):
        whole, newline, rest = (rest + piece).rpartition(b"\n")
        if newline:
            yield (whole + newline).removeprefix(BOM) if is_first else whole + newline
            is_first = False
    if rest:
        yield rest.removeprefix(BOM) if is_first else rest


def _is_array(path: Path) -> bool:
    return head_of(path).lstrip().startswith(b"[")


def _array(path: Path, file: IO[bytes]) -> list[Any]:
    text = file.read().removeprefix(BOM)
    try:
        values: list[Any] = msgspec.json.decode(text, type=list[Any])
    except UNDECODABLE as error:
        # NaN, which Python writes, is none of JSON.
        with suppress(ValueError, RecursionError):
            if isinstance(found := json.loads(text), list):
                return found
        raise InteractionError(f"{path} begins like a JSON array but is none: {error}. Objects may also stand one a line.") from error
    return values


def _loaded(line: bytes) -> Any:
    """The value of a line of JSON (NaN included, which pandas writes) or of a Python literal; None if it is neither.

    A byte that is no UTF-8 becomes half of a surrogate pair, as JSON may say one by its number.
    """
    text = line.removeprefix(BOM).decode(errors="surrogateescape").strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
