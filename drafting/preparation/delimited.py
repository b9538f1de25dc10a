"""Tables of delimited text: CSV, TSV, and MovieLens' `::`.

Invariant: every value is read as the text that stands there, so that an id 007 stays one; a row with too many or too few values is bad, and
costs no other row.
"""

import csv
import io
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from drafting.errors import InteractionError, first_line, quoted
from drafting.preparation.rows import BadLines, RowBatch
from drafting.preparation.sources import UNREADABLE, head_of, opened

_BLOCK_BYTES = 8 << 20
_DELIMITERS = ("\t", ",", ";", "|", "::")
# Stands for a delimiter of two characters, and in no text.
_UNIT = "\x1f"
_LINE_END = re.compile("\r\n|\n|\r")


@dataclass(frozen=True)
class DelimitedForm:
    """How a file is written.

    Attributes:
        names: of the columns.
        header: whether the first line holds them.
        quotes: whether values may stand in quotation marks.
    """

    names: tuple[str, ...]
    delimiter: str = ","
    header: bool = True
    quotes: bool = True
    encoding: str = "utf-8"


def found_form(path: Path, names: Sequence[str] = (), delimiter: str | None = None, encoding: str = "utf-8") -> DelimitedForm:
    """The form of a file, by its first line.

    Args:
        names: of the columns of a file without a header; empty for one that has it.

    Raises:
        InteractionError: the line is no text, or has one value, or there is no such encoding.
    """
    line = _LINE_END.split(_decoded(head_of(path), encoding), maxsplit=1)[0]
    if "\x00" in line:
        raise InteractionError(f"{path} is neither text, JSON nor parquet; if it is text of another encoding, say it with --encoding.")
    delimiter = delimiter or max(_DELIMITERS, key=line.count)
    if delimiter not in line:
        raise InteractionError(
            f"The first line of {path}, {quoted(line.strip())}, holds one value: name what separates its columns with --delimiter."
        )
    values = [value.strip() for value in next(csv.reader([line.replace(delimiter, _UNIT)], delimiter=_UNIT))]
    if names and len(names) != len(values):
        raise InteractionError(f"--columns names {len(names)} columns, but the first line of {path} has {len(values)} values.")
    return DelimitedForm(tuple(names or values), delimiter, header=not names, encoding=encoding)


def _decoded(head: bytes, encoding: str) -> str:
    try:
        return io.TextIOWrapper(io.BytesIO(head), encoding, errors="replace", newline="").read()
    except (LookupError, UnicodeError) as error:
        raise InteractionError(
            f"There is no encoding {encoding!r} of text: --encoding takes utf-8, latin-1, cp1252, utf-16 and others."
        ) from error


def read_delimited(
    path: Path, form: DelimitedForm, wanted: Sequence[str], bad: BadLines, on_bytes: Callable[[int], object]
) -> Iterator[RowBatch]:
    """Read the wanted columns, as large strings; values that are empty are null.

    Raises:
        InteractionError: the file can't be read to its end.
    """
    broken: list[int] = []
    header_lines = 1 if form.header else 0

    def skip(row: Any) -> str:
        bad.seen(1)
        broken.append(row.number)
        found = (
            f"{row.actual_columns} values where {row.expected_columns} are expected, {quoted(row.text.strip())}" if bad.names_more else ""
        )
        bad.add(path, row.number, found)
        return "skip"

    place = {name: number for number, name in enumerate(form.names)}
    names = [str(number) for number in range(len(form.names))]
    kept = [names[place[name]] for name in wanted]
    delimiter = _UNIT if len(form.delimiter) > 1 else form.delimiter
    first = header_lines + 1
    with path.open("rb") as raw:
        stream = opened(path, raw)
        try:
            reader = pa_csv.open_csv(
                stream if delimiter == form.delimiter else _OneDelimiter(stream, form),
                # Threads would lose the numbers of bad rows.
                pa_csv.ReadOptions(
                    column_names=names,
                    skip_rows=header_lines,
                    use_threads=False,
                    block_size=_BLOCK_BYTES,
                    encoding=form.encoding if delimiter == form.delimiter else "utf-8",
                ),
                pa_csv.ParseOptions(
                    delimiter=delimiter,
                    quote_char='"' if form.quotes else False,
                    newlines_in_values=form.quotes,
                    ignore_empty_lines=False,
                    invalid_row_handler=skip,
                ),
                pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.large_string()), include_columns=kept, strings_can_be_null=True, null_values=[""]
                ),
            )
            for batch in reader:
                columns = {name: batch.column(number) for number, name in enumerate(wanted)}
                yield RowBatch(path, columns, partial(_line, first, broken), len(batch), is_text=True)
                behind = _line(first, broken, len(batch))
                # Those that are passed are counted in `behind`: kept, they would grow with the file.
                broken = broken[behind - first - len(batch) :]
                first = behind
                on_bytes(raw.tell())
        except (pa.ArrowException, UnicodeError, *UNREADABLE) as error:
            raise InteractionError(f"{path} cannot be read: {_explained(error)}.") from error


def _line(first: int, broken: Sequence[int], row: int) -> int:
    """The line of a good row of those from line `first` on, given the bad ones from there on."""
    return first + row + bisect_right(range(len(broken)), first + row, key=lambda place: broken[place] - place)


def _explained(error: Exception) -> str:
    text = first_line(error).rstrip(".")
    if "UTF8" in text or isinstance(error, UnicodeError):
        return f"it is not UTF-8 ({text}); say what it is with --encoding, such as latin-1"
    if "straddl" in text or "out of sync" in text:
        return f'a quotation mark opens a value that does not end ({text}); say --no-quotes if " is a letter like any other'
    return text


class _OneDelimiter(io.RawIOBase):
    """Bytes in which the delimiter `::` has become one character, and the encoding UTF-8."""

    def __init__(self, stream: IO[bytes], form: DelimitedForm) -> None:
        self._stream = io.TextIOWrapper(stream, encoding=form.encoding, newline="")
        self._delimiter = form.delimiter
        self._rest = ""
        self._ready = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._ready) < size or size < 0:
            text = self._stream.read(1 << 16)
            whole = (self._rest + text).replace(self._delimiter, _UNIT)
            # Half a delimiter may have its other half in what comes next.
            self._rest = self._delimiter[0] if text and whole.endswith(self._delimiter[0]) else ""
            self._ready += whole[: len(whole) - len(self._rest)].encode()
            if not text:
                break
        size = len(self._ready) if size < 0 else size
        answer, self._ready = self._ready[:size], self._ready[size:]
        return answer
