"""Interactions from parquet: columns `user`, `item`, `timestamp` and those of details, read batch by batch.

Invariant: the same interactions give the same arrays as from JSONL. Only user names and the different values of details outlive their batch
as Python objects.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from drafting.alignment.data.arrow_values import add_values
from drafting.alignment.data.columns import TableBuilder
from drafting.alignment.data.details import ATTRIBUTES, CONTEXT, KIND, VALUE
from drafting.alignment.data.interactions import Interactions, by_user
from drafting.alignment.data.item_index import ItemIndex, MetNames, known_indices
from drafting.array_types import DoubleArray
from drafting.catalog.parquet import checked_batches, name_texts, open_parquet
from drafting.errors import InteractionError, first_line

COLUMNS = ("user", "item", "timestamp")


def load_parquet(path: Path, catalog: ItemIndex) -> Interactions:
    """Read interactions in any order and sort each user's by time; equal times keep the order of the file.

    Raises:
        InteractionError: pyarrow is not installed, the file is not parquet, lacks a column or a value, or names an unknown item.
    """
    met = MetNames()
    rows, indices, times = [], [], []
    details, count = TableBuilder(), 0
    with open_parquet(path, "interactions", InteractionError) as file:
        import pyarrow as pa
        import pyarrow.compute as pc

        names = file.schema_arrow.names
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise InteractionError(f"{path} has no column {missing[0]!r}: it needs {', '.join(COLUMNS)}.")
        more = [name for name in names if f"{name}.".startswith((f"{KIND}.", f"{VALUE}.", ATTRIBUTES, CONTEXT))]
        for batch in checked_batches(file, columns=[*COLUMNS, *more]):
            columns = [batch.column(name) for name in COLUMNS]
            lacking = any(column.null_count for column in columns)
            seconds = np.empty(0) if lacking else _seconds(columns[2], path)
            if lacking or np.isnan(seconds).any():
                raise InteractionError(f"{path} has interactions without a user, an item or a timestamp.")
            texts = [name_texts(column, path, name, InteractionError) for column, name in zip(columns, COLUMNS[:2], strict=False)]
            users, items = map(pc.dictionary_encode, texts)
            rows.append(met.indices_of(users.dictionary.to_pylist())[users.indices.to_numpy()])
            indices.append(known_indices(items.dictionary.to_pylist(), catalog, path)[items.indices.to_numpy()])
            times.append(seconds)
            for name, column, metadata in _flat(pa.Table.from_batches([batch]).select(more)):
                add_values(details[name], count, _details(column, name, path), metadata)
            count += len(batch)
    if not rows:
        raise InteractionError(f"{path} holds no interactions.")
    return by_user(tuple(met.names), np.concatenate(rows), np.concatenate(indices), np.concatenate(times), details.columns(count))


def _flat(table: Any) -> Iterator[tuple[str, Any, Any]]:
    """The columns of a table of one batch, with the metadata of each; those of the fields of `attributes` and `context` where these are
    columns of objects."""
    flat = table.flatten()
    yield from ((name, flat.column(name).combine_chunks(), flat.schema.field(name).metadata) for name in flat.column_names)


def _details(column: Any, name: str, path: Path) -> Any:
    """The column of details `name`, with kinds as texts and values as floats."""
    import pyarrow as pa

    if name not in (KIND, VALUE):
        return column
    try:
        return column.cast(pa.large_string() if name == KIND else pa.float64())
    except pa.ArrowException as error:
        raise InteractionError(f"The column {name} of {path} holds values of type {column.type}: {first_line(error)}.") from error


def _seconds(column: Any, path: Path) -> DoubleArray:
    """Times as numbers: seconds since 1970 of dates and timestamps, and numbers as they are; of a column without nulls."""
    import pyarrow as pa

    try:
        if pa.types.is_temporal(column.type):
            microseconds: DoubleArray = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy()
            return microseconds / 1e6
        # Nanoseconds since 1970 are beyond 2^53, so the nearest floats stand for them, as for those of JSONL.
        numbers: DoubleArray = column.cast(pa.float64(), safe=False).to_numpy()
    except pa.ArrowException as error:
        raise InteractionError(
            f"The column {COLUMNS[2]} of {path} holds values of type {column.type} that are neither numbers nor parquet's own dates: "
            "`atspeed prepare` makes a data directory of texts, too."
        ) from error
    return numbers
