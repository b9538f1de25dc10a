"""Catalogs from parquet: columns `item_id`, `identifier` or `codes`, and any others as attributes, read batch by batch.

Invariant: the same items give the same catalog as from JSONL; columns go from Arrow's arrays into ours, and only distinct values pass
through Python.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drafting.catalog.attributes import json_text
from drafting.catalog.builder import CatalogBuilder
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.pattern import TokenPattern
from drafting.catalog.text_column import TextColumn

_ROWS_AT_ONCE = 1 << 18


def read_parquet(path: Path, pattern: TokenPattern, on_items: Callable[[int], None]) -> Catalog:
    """Read a parquet file; see `catalog_files.read_catalog`.

    Raises:
        CatalogError: pyarrow is not installed, the file is no parquet, lacks a column or a value, or is no catalog.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise CatalogError(f"Reading {path} needs pyarrow ({error}): pip install 'atspeed-server[train]', or give JSONL.") from error
    builder = CatalogBuilder()
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            tokens = next((name for name in ("identifier", "codes") if name in names), None)
            if "item_id" not in names or tokens is None:
                raise CatalogError(f"{path} needs the columns item_id, and identifier or codes; it has {', '.join(names)}.")
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                if batch.column("item_id").null_count or batch.column(tokens).null_count:
                    raise CatalogError(f"{path} has items without an id or without {tokens}.")
                attributes = {name: _values(batch.column(name)) for name in names if name not in ("item_id", tokens)}
                builder.add_columns(_texts(batch.column("item_id")), _codes(batch.column(tokens), path, pattern, builder), attributes)
                on_items(len(batch))
    except (pa.ArrowException, OSError) as error:
        raise CatalogError(f"The catalog {path} cannot be read: {str(error).splitlines()[0]}.") from error
    return builder.catalog()


def _texts(column: Any) -> TextColumn:
    """Arrow strings as ours: the same two arrays."""
    import pyarrow as pa

    array = column.cast(pa.large_string())
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(array.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    return TextColumn(offsets - offsets[0], np.concatenate([data, np.zeros(8, np.uint8)]))


def _codes(column: Any, path: Path, pattern: TokenPattern, builder: CatalogBuilder) -> npt.NDArray[np.int32]:
    """Identifiers, lists of one length, as the builder's codes `[rows, length]`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise CatalogError(f"{path} has identifiers of {', '.join(map(str, sorted(lengths)))} tokens: all must have the same length.")
    values = pc.list_flatten(column)
    if values.null_count:
        raise CatalogError(f"{path} has an identifier with a missing token.")
    if pa.types.is_integer(values.type):
        return _integer_codes(values.cast(pa.int64()).to_numpy().reshape(-1, lengths[0]), pattern, builder)
    encoded = pc.dictionary_encode(values.cast(pa.string()))
    codes: npt.NDArray[np.int32] = builder.codes_of(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
    return codes.reshape(-1, lengths[0])


def _integer_codes(numbers: npt.NDArray[np.int64], pattern: TokenPattern, builder: CatalogBuilder) -> npt.NDArray[np.int32]:
    keys = numbers * numbers.shape[1] + np.arange(numbers.shape[1])
    distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    tokens = [pattern.token(key % numbers.shape[1], key // numbers.shape[1]) for key in distinct[order].tolist()]
    codes = np.empty(len(distinct), np.int32)
    codes[order] = builder.codes_of(tokens)
    return codes[inverse].reshape(numbers.shape)


def _values(column: Any) -> tuple[npt.NDArray[np.int64], TextColumn]:
    """The rows that have a value, and the values as JSON texts."""
    import pyarrow.compute as pc

    rows = np.flatnonzero(pc.is_valid(column).to_numpy(zero_copy_only=False))
    present = column.drop_null()
    try:
        encoded = pc.dictionary_encode(present)
    except NotImplementedError:
        return rows, TextColumn.of(json_text(value) for value in present.to_pylist())
    return rows, TextColumn.of(json_text(value) for value in encoded.dictionary.to_pylist()).take(encoded.indices.to_numpy())
