"""The users of files, which are JSON lines or parquet; and the blocks that they are read in.

Invariant: a row of parquet is read as the JSON line that has the same fields, so both ask the same questions. A block is the same rows in
every run over the same files, whoever reads it; a file that has changed since it was found is refused.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from drafting.catalog.parquet import name_twice
from drafting.errors import first_line
from server.offline.questions import UserLine
from server.offline.user_files import UserFile, UsersError

_KNOWN_COLUMNS = UserLine.__struct_fields__
_WHOLE_COLUMNS = ("user_id", "k", "beam_width")
# One of them at least tells of users.
_TELLING = ("history", "behaviours", "context")


@dataclass(frozen=True, slots=True)
class Block:
    """Some successive users of one file, whose lists are made and written together.

    Attributes:
        part: number of the block among all of a run.
        file: index of the file.
        start, end: its bytes of a file of JSON lines, or its rows of a table.
        lines_before: lines of the file before it, empty ones included.
        number: lines of all files before it.
        users: users of it, at least one.
    """

    part: int
    file: int
    start: int
    end: int
    lines_before: int
    number: int
    users: int


@dataclass(frozen=True, slots=True)
class Row:
    """One user as JSON.

    Attributes:
        number: its number among the lines of all files, from 0.
        line: its number in its file, from 1.
        text: a str is a sentence about why the row can't be read.
        file: name of the file; None if it is the only one.
    """

    number: int
    line: int
    text: bytes | str
    file: str | None = None


def plan_blocks(files: Sequence[UserFile], most: int) -> Iterator[Block]:
    """The blocks of the files, in order, of at most so many users each.

    Raises:
        UsersError: a table can't be read, or has no column of users.
        FolderError: a file can't be read, or has changed since it was found.
    """
    part = number = 0
    for index, file in enumerate(files):
        lines = 0
        for start, end, rows, users in _spans(file, most):
            if users:
                yield Block(part, index, start, end, lines, number, users)
                part += 1
            lines += rows
            number += rows


def _spans(file: UserFile, most: int) -> Iterator[tuple[int, int, int, int]]:
    """Start, end, lines and users of each block of a file."""
    if file.is_table:
        rows = _table(file).metadata.num_rows
        for first in range(0, rows, most):
            end = min(first + most, rows)
            yield first, end, end - first, end - first
        return
    start = end = lines = users = 0
    with file.open() as source:
        for line in source:
            lines += 1
            end += len(line)
            users += bool(line.strip())
            if users == most:
                yield start, end, lines, users
                start, lines, users = end, 0, 0
    yield start, end, lines, users


def read_rows(files: Sequence[UserFile], block: Block) -> Iterator[Row]:
    """The users of a block.

    Raises:
        UsersError, FolderError: as `plan_blocks`.
    """
    file = files[block.file]
    name = file.name if len(files) > 1 else None
    texts: Iterable[bytes | str]
    texts = _table_lines(file, block.start, block.end) if file.is_table else file.range(block.start, block.end).split(b"\n")
    for offset, text in enumerate(texts):
        if text.strip():
            yield Row(block.number + offset, block.lines_before + offset + 1, text, name)


def _table_lines(file: UserFile, start: int, end: int) -> Iterator[bytes | str]:
    metadata, first = _table(file).metadata, 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if first < end and start < first + rows:
            low = max(start - first, 0)
            yield from _lines(_row_group(file, group).slice(low, min(end - first, rows) - low))
        first += rows


def _lines(rows: Any) -> Iterable[bytes | str]:
    """Rows of a table as JSON, and a sentence for each that Python can't hold."""
    try:
        return list(map(_json_line, rows.to_pylist(maps_as_pydicts="strict")))
    # Texts that are not UTF-8, times beyond the year 9999 or of an unknown zone, a key of a map that is there twice.
    except (ValueError, OverflowError, KeyError) as error:
        if len(rows) == 1:
            return [f"The row can't be read: {first_line(error)}."]
        return (line for row in range(len(rows)) for line in _lines(rows.slice(row, 1)))


# The blocks of a row group follow each other, and a row group can only be read whole.
@lru_cache(maxsize=1)
def _row_group(file: UserFile, group: int) -> Any:
    import pyarrow as pa

    table = _table(file)
    columns = [name for name in table.schema_arrow.names if name in _KNOWN_COLUMNS]
    try:
        return table.read_row_group(group, columns=columns)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UsersError(f"The table {file.folder}/{file.name} can't be read: {first_line(error)}.") from error


@lru_cache(maxsize=1)
def _table(file: UserFile) -> Any:
    """An open table."""
    whole = f"{file.folder}/{file.name}"
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as missing:
        raise UsersError(f"Reading {whole} needs pyarrow ({missing}): pip install 'atspeed-server[train]', or give JSONL.") from missing
    try:
        table = pq.ParquetFile(file.open())
        columns = table.schema_arrow.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UsersError(f"The table {whole} can't be read: {first_line(error)}.") from error
    if name := name_twice([name for name in columns if name in _KNOWN_COLUMNS]):
        raise UsersError(f"The table {whole} has two columns of the name {name}: rename one.")
    if not {*columns} & {*_TELLING}:
        raise UsersError(f"The table {whole} has no column `history` (nor `behaviours` or `context`); it has {', '.join(columns)}.")
    return table


def _json_line(row: dict[str, Any]) -> bytes:
    """A row as JSON; a value that is missing is left out, for a table can't leave out its column in one row."""
    whole = {name: _whole(row[name]) for name in _WHOLE_COLUMNS if name in row}
    return msgspec.json.encode(_present(row | whole), enc_hook=str)


def _whole(value: Any) -> Any:
    """A whole number of 64 bits as an integer: pandas makes floats of a column of integers with a gap, and databases export decimals."""
    is_whole = isinstance(value, float | Decimal) and -(2**63) < value < 2**63 and value == int(value)
    return int(value) if is_whole else value


def _present(value: Any) -> Any:
    match value:
        case bytes():
            # Hive and Impala say nothing of their texts being texts.
            return value.decode()
        case Decimal():
            # As `atspeed prepare` keeps it; a whole one may be an id.
            return float(value) if value.as_tuple().exponent else _whole(value)
        case dict():
            return {_present(name): _present(each) for name, each in value.items() if each is not None}
        case list():
            return [_present(each) for each in value]
        case datetime() if value.tzinfo is None:
            # Times without a zone are in UTC, as everywhere in data.
            return value.replace(tzinfo=UTC)
        case _:
            return value
