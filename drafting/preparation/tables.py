"""A table in files of any form, read batch by batch: as Arrow columns for interactions, as values for what is known of items and users.

Invariant: only the wanted columns are read, and nothing of a batch outlives it here.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from math import isnan
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from drafting.catalog.json_values import listed
from drafting.catalog.parquet import checked_batches, open_parquet
from drafting.errors import InteractionError
from drafting.preparation.columns import shown_names
from drafting.preparation.delimited import DelimitedForm, found_form, read_delimited
from drafting.preparation.json_rows import field_names, read_json
from drafting.preparation.rows import BadLines, RowBatch, Tell
from drafting.preparation.sources import Format, Source, Sources, are_utf8, find_sources

_ROWS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class TextOptions:
    """How to read delimited text, where its first line does not tell.

    Attributes:
        names: of the columns of files without a header.
        delimiter: None for the one that the first line has most of.
        encoding: of tables that are not surely UTF-8.
    """

    names: tuple[str, ...] = ()
    delimiter: str | None = None
    quotes: bool = True
    encoding: str = "utf-8"


PLAIN = TextOptions()


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        names: of its columns, in order, as its first lines tell them; those that folders are named after come last.
        form: how its text is written; None for JSON and parquet.
    """

    sources: Sources
    names: tuple[str, ...]
    form: DelimitedForm | None = None

    @classmethod
    def open(cls, path: Path, options: TextOptions = PLAIN) -> "Table":
        """Find the files of a table, and its columns by the first of them.

        Raises:
            InteractionError: there is no table.
        """
        sources = find_sources(path)
        first = sources.files[0]
        form = None
        match first.format:
            case Format.DELIMITED:
                encoding = options.encoding
                if encoding.lower() != PLAIN.encoding and are_utf8(each.path for each in sources.files):
                    encoding = PLAIN.encoding
                form = replace(found_form(first.path, options.names, options.delimiter, encoding), quotes=options.quotes)
                names = form.names
            case Format.JSON:
                names = field_names(first.path)
                if not names:
                    raise InteractionError(f"{first.path} holds no JSON objects: it needs one a line.")
            case Format.PARQUET:
                with open_parquet(first.path, "table", InteractionError) as file:
                    names = tuple(file.schema_arrow.names)
        constants = tuple(name for name in first.constants if name not in names)
        return cls(sources, (*(name for name in names if name), *constants), form)

    @property
    def typed(self) -> bool:
        """Whether numbers are told from texts in it."""
        return self.sources.files[0].format is not Format.DELIMITED

    @property
    def is_json(self) -> bool:
        """Whether its rows are objects, which leave out what they lack."""
        return self.sources.files[0].format is Format.JSON

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files."""
        return tuple(source.path for source in self.sources.files)

    @cached_property
    def all_names(self) -> tuple[str, ...]:
        """The names of its columns: of JSON, all fields that any object has; all is read for it.

        Raises:
            InteractionError: a file can't be read.
        """
        names = dict.fromkeys(self.names)
        if self.is_json:
            for source in self.sources.files:
                with _bar(source):
                    names.update(dict.fromkeys(filter(None, field_names(source.path, most=None))))
        return tuple(names)

    def names_with(self, wanted: Collection[str]) -> tuple[str, ...]:
        """Its names; all of them where those by which it was opened lack a wanted one.

        Raises:
            InteractionError: as `all_names`.
        """
        return self.names if set(wanted) <= set(self.names) else self.all_names

    def read(self, wanted: Sequence[str], bad: BadLines, scalar: Sequence[str] = ()) -> Iterator[RowBatch]:
        """Read columns: of parquet as they are, of all else as large strings.

        Args:
            scalar: those of them in which a list or an object is refused, rather than taken for nothing.

        Raises:
            InteractionError: a file can't be read, or a value is nested where none may be.
        """
        for source in self.sources.files:
            own, constants = _own(source, wanted)
            with _bar(source) as on_read:
                for rows in self._rows(source, own, bad, on_read, scalar):
                    bad.seen(rows.size)
                    more = {name: pa.array([value] * rows.size, pa.large_string()) for name, value in constants.items()}
                    yield replace(rows, columns={**rows.columns, **more})

    def records(self, wanted: Sequence[str], bad: BadLines) -> Iterator[tuple[Any, ...]]:
        """Read rows as values, in the order of the wanted names.

        Raises:
            InteractionError: as `read`.
        """
        for source in self.sources.files:
            own, constants = _own(source, wanted)
            with _bar(source) as on_read:
                if source.format is Format.JSON:
                    columns = (list(zip(*rows, strict=True)) or [()] * len(own) for rows, _ in read_json(source.path, own, bad, on_read))
                else:
                    columns = ([rows.columns[name].to_pylist() for name in own] for rows in self._rows(source, own, bad, on_read))
                for values in columns:
                    size = len(values[0]) if values else 0
                    bad.seen(size)
                    by_name = {**dict(zip(own, values, strict=True)), **{name: repeat(value, size) for name, value in constants.items()}}
                    yield from zip(*(by_name[name] for name in wanted), strict=True)

    def _rows(
        self, source: Source, wanted: Sequence[str], bad: BadLines, on_read: Callable[[int], object], scalar: Sequence[str] = ()
    ) -> Iterator[RowBatch]:
        match source.format:
            case Format.DELIMITED:
                yield from read_delimited(source.path, self._form_of(source.path, wanted), wanted, bad, on_read)
            case Format.JSON:
                for rows, lines in read_json(source.path, wanted, bad, on_read):
                    columns = dict(zip(wanted, zip(*rows, strict=True), strict=False))
                    _refuse_nested(
                        source.path, [name for name in scalar if any(isinstance(each, list | dict) for each in columns.get(name, ()))]
                    )
                    if rows:
                        texts = {name: pa.array(map(_text, column), pa.large_string()) for name, column in columns.items()}
                        yield RowBatch(source.path, texts, lines.__getitem__, len(rows))
            case Format.PARQUET:
                yield from _parquet(source.path, wanted, on_read, scalar)

    def _form_of(self, path: Path, wanted: Sequence[str]) -> DelimitedForm:
        """The form of a part: the columns of another part may stand in another order."""
        assert self.form is not None
        if path == self.sources.files[0].path or not self.form.header:
            _require(path, self.form.names, wanted)
            return self.form
        found = found_form(path, (), self.form.delimiter, self.form.encoding)
        _require(path, found.names, wanted)
        return replace(self.form, names=found.names)


def tell_no_data(path: Path, table: Table, tell: Tell) -> None:
    """Say which files at the path of a table are none of its parts."""
    if table.sources.left_out:
        tell(f"Of {path} these files are no data, or empty: {listed(table.sources.left_out)}.")


def _own(source: Source, wanted: Sequence[str]) -> tuple[list[str], dict[str, str | None]]:
    """The wanted columns that are in the file, and those that are in the names of its folders."""
    return [name for name in wanted if name not in source.constants], {
        name: source.constants[name] for name in wanted if name in source.constants
    }


def _parquet(path: Path, wanted: Sequence[str], on_read: Callable[[int], object], scalar: Sequence[str]) -> Iterator[RowBatch]:
    with open_parquet(path, "table", InteractionError) as file:
        _require(path, file.schema_arrow.names, wanted)
        _refuse_nested(path, [name for name in scalar if name in wanted and pa.types.is_nested(file.schema_arrow.field(name).type)])
        rows, size = 0, path.stat().st_size
        for batch in checked_batches(file, batch_size=_ROWS_AT_ONCE, columns=list(wanted)):
            lines = range(rows + 1, rows + len(batch) + 1)
            yield RowBatch(path, {name: batch.column(name) for name in wanted}, lines.__getitem__, len(batch))
            rows += len(batch)
            on_read(size * rows // max(file.metadata.num_rows, 1))


def _require(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InteractionError(f"{path} has no column {missing[0]!r}, but the files before it have: it has {shown_names(names)}.")
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise InteractionError(f"{path} has two columns of the name {twice[0]}: rename one.")


def _refuse_nested(path: Path, names: Sequence[str]) -> None:
    if names:
        raise InteractionError(f"The column {names[0]} of {path} holds lists or objects: what is kept is texts, numbers and booleans.")


def _text(value: Any) -> str | None:
    """A value of JSON as a text; None for lists and objects, and for NaN, which programs write where there is nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    is_number = isinstance(value, int) or (isinstance(value, float) and not isnan(value))
    return repr(value) if is_number else None


@contextmanager
def _bar(source: Source) -> Iterator[Callable[[int], object]]:
    """A progress bar over the bytes of a file; it is told how many have been read in all."""
    with tqdm(total=source.path.stat().st_size, desc=f"reading {source.path.name}", unit="B", unit_scale=True) as bar:
        yield lambda read: bar.update(read - bar.n)
        bar.update(bar.total - bar.n)
