"""Catalogs from parquet: columns `item_id`, `identifier` or `codes` (OpenOneRec: `pid`, `codes` or `sid`), and all others as attributes.

Invariant: the same items give the same catalog as from JSONL. Arrow arrays are converted to NumPy arrays, and only distinct values become
Python objects.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drafting.array_types import IntArray
from drafting.catalog.builder import MOST_EXACT, CatalogBuilder
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.json_values import MAX_ATTRIBUTES, check_attributes, json_text, too_many, unusable
from drafting.catalog.pattern import IdentifierTexts, TokenPattern
from drafting.catalog.reading import Reading
from drafting.catalog.text_column import TextColumn
from drafting.errors import SetupError, check_file, first_line

# Names of the columns of ids and of identifiers; those of OpenOneRec come last and are attributes beside one before them.
_ID_COLUMNS = ("item_id", "pid")
_TOKEN_COLUMNS = ("identifier", "codes", "sid")
_ROWS_AT_ONCE = 1 << 18


@contextmanager
def open_parquet(path: Path, kind: str, error: type[SetupError]) -> Iterator[Any]:
    """Open a parquet file as a `pyarrow.parquet.ParquetFile`.

    Args:
        kind: contents of the file, for the error message.
        error: class to raise if pyarrow is not installed, the file cannot be read or two of its columns have the same name.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as missing:
        raise error(f"Reading {path} needs pyarrow ({missing}): pip install 'atspeed-server[train]', or give JSONL.") from missing
    check_file(path, f"The {kind}", error)
    try:
        with pq.ParquetFile(path) as file:
            if name := name_twice(file.schema_arrow.names):
                raise error(f"The {kind} {path} has two columns of the name {name}: rename one.")
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as failure:
        reason = first_line(failure)
        if "UTF8" in reason or isinstance(failure, UnicodeDecodeError):
            reason = "it has texts that are not UTF-8"
        raise error(f"The {kind} {path} cannot be read: {reason}.") from failure


def checked_batches(file: Any, **options: Any) -> Iterator[Any]:
    """The batches of a `pyarrow.parquet.ParquetFile`, with arguments of `iter_batches`, each of them sound.

    Arrow looks at nothing before it is used: what is damaged would be found out where nobody knows of the file.

    Raises:
        ArrowException: one is damaged, or has a text that is not UTF-8.
    """
    for batch in file.iter_batches(**options):
        batch.validate(full=True)
        yield batch


def name_twice(names: Sequence[str]) -> str | None:
    """The first name that two columns have; None if each has its own."""
    return next((name for at, name in enumerate(names) if name in names[:at]), None)


def read_parquet(path: Path, reading: Reading) -> Catalog:
    """Read a catalog from parquet; see `load_catalog`.

    Raises:
        CatalogError: pyarrow is not installed, the file is not parquet, lacks a column or a value, or is not a catalog.
    """
    limits = reading.limits
    builder, texts = CatalogBuilder(limits), IdentifierTexts(reading.pattern)
    packed, unpacked = path.stat().st_size if path.exists() else 0, 0
    with open_parquet(path, "catalog", CatalogError) as file:
        names = file.schema_arrow.names
        ids, tokens = _column(names, _ID_COLUMNS), _column(names, _TOKEN_COLUMNS)
        if ids is None or tokens is None:
            raise CatalogError(
                f"{path} needs the columns item_id, and identifier or codes; it has {', '.join(names)} (OpenOneRec's pid and sid will do)."
            )
        others = [name for name in names if name not in (ids, tokens)]
        if len(others) > MAX_ATTRIBUTES:
            raise CatalogError(too_many(len(others)))
        limits.check_items(file.metadata.num_rows)
        reading.on_form(
            f"parquet with item ids in the column {ids} and identifiers in the column {tokens} ({file.schema_arrow.field(tokens).type})"
        )
        for batch in checked_batches(file, batch_size=_ROWS_AT_ONCE):
            limits.check_ratio(unpacked := unpacked + batch.nbytes, packed)
            if batch.column(ids).null_count or batch.column(tokens).null_count:
                raise CatalogError(f"{path} has items without an id or without {tokens}.")
            item_ids = _texts(name_texts(batch.column(ids), path, ids, CatalogError))
            attributes = {name: _values(batch.column(name), name, item_ids) for name in others}
            identifiers = _lists(batch.column(tokens), path, item_ids, texts)
            builder.add_columns(item_ids, _codes(identifiers, path, tokens, reading.pattern, builder), attributes)
            reading.on_items(len(batch))
    if (left_out := texts.left_out) is not None:
        reading.on_form(left_out)
    return builder.catalog()


def _column(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of the wanted columns that is there."""
    return next((name for name in wanted if name in names), None)


def name_texts(column: Any, path: Path, name: str, error: type[SetupError]) -> Any:
    """The column `name` of a file, of texts or whole numbers, as Arrow's large strings.

    Raises:
        SetupError: `error`, as it holds something else.
    """
    import pyarrow as pa

    column = whole_numbers(_plain(column), path, name, error)
    if not (pa.types.is_integer(column.type) or _is_text(column.type)):
        raise error(f"The column {name} of {path} holds values of type {column.type}: it needs texts or whole numbers.")
    return column.cast(pa.large_string())


def whole_numbers(column: Any, path: Path, name: str, error: type[SetupError]) -> Any:
    """A column of floats or decimals as the integers that they are, which a cast to texts would write as 1e+12 or 7.0; any other as it is.

    pandas makes floats of a column of integers with a gap, and so do tensors; databases export whole numbers as decimals.

    Raises:
        SetupError: `error`, as one is not a whole number, or so large that its neighbours are the same float, or has more than 64 bits.
    """
    import pyarrow as pa

    if pa.types.is_decimal(column.type):
        try:
            return column.cast(pa.int64())
        except pa.ArrowException as failure:
            raise error(f"{path} has decimals in its column {name} that are not whole numbers of 64 bits.") from failure
    if not pa.types.is_floating(column.type):
        return column
    numbers = column.cast(pa.float64()).to_numpy()
    exact = (np.abs(numbers) <= MOST_EXACT) & (numbers == np.round(numbers))
    if not exact.all():
        raise error(f"{path} has {numbers[~exact][0]} in its column {name}, which is not a whole number up to 2^53.")
    return pa.array(numbers.astype(np.int64))


def _plain(column: Any) -> Any:
    """The column without Arrow's dictionary encoding."""
    import pyarrow as pa

    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _texts(array: Any) -> TextColumn:
    """A text column from Arrow's large strings, which have the same two arrays."""
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(array.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    return TextColumn(offsets - offsets[0], np.concatenate([data, np.zeros(8, np.uint8)]))


def _lists(column: Any, path: Path, item_ids: TextColumn, texts: IdentifierTexts) -> Any:
    """Identifiers as Arrow's lists of tokens or codes; those written as one text are split."""
    import pyarrow as pa

    column = _plain(column)
    kind = column.type
    if _is_text(kind):
        split = [texts.tokens(item_ids[row], text) for row, text in enumerate(column.to_pylist())]
        return pa.array(split, pa.list_(pa.string()))
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise CatalogError(f"{path} has identifiers of type {kind}: it needs lists of tokens or of whole numbers, or texts of tokens.")
    return column


def _codes(column: Any, path: Path, name: str, pattern: TokenPattern, builder: CatalogBuilder) -> npt.NDArray[np.int32]:
    """Identifiers (lists of one length) as codes of the builder, `[rows, length]`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise CatalogError(f"{path} has identifiers of {', '.join(map(str, sorted(lengths)))} tokens: all must have the same length.")
    values = _plain(pc.list_flatten(column))
    if values.null_count:
        raise CatalogError(f"{path} has an identifier with a missing token.")
    values = whole_numbers(values, path, name, CatalogError)
    if pa.types.is_integer(values.type):
        numbers = values.cast(pa.int64()).to_numpy()
        if len(numbers) and max(-int(numbers.min()), int(numbers.max())) > MOST_EXACT:
            raise CatalogError(f"{path} has a code beyond 2^53.")
        return builder.codes_of_numbers(numbers.reshape(-1, lengths[0]), pattern)
    encoded = pc.dictionary_encode(name_texts(values, path, name, CatalogError))
    codes: npt.NDArray[np.int32] = builder.codes_of(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
    return codes.reshape(-1, lengths[0])


def _values(column: Any, name: str, item_ids: TextColumn) -> tuple[IntArray, TextColumn]:
    """The rows that have a value, and their values as JSON texts."""
    import pyarrow.compute as pc

    rows = np.flatnonzero(pc.is_valid(column).to_numpy(zero_copy_only=False))
    present = column.drop_null()
    try:
        encoded = pc.dictionary_encode(present)
        different, numbers = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    except NotImplementedError:
        different, numbers = present.to_pylist(), np.arange(len(present))
    for number, value in enumerate(different):
        if unusable(value):
            item_id = item_ids[int(rows[np.argmax(numbers == number)])]
            try:
                check_attributes(item_id, {name: value})
            except ValueError as error:
                raise CatalogError(str(error)) from error
    return rows, TextColumn.of(map(json_text, different)).take(numbers)
