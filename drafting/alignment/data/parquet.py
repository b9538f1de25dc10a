"""Interactions from parquet: columns `user`, `item` and `timestamp`, read batch by batch.

Invariant: the same interactions give the same arrays as from JSONL. Only the user names outlive their batch as Python objects.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from drafting.alignment.data.interactions import InteractionError, Interactions, by_user
from drafting.catalog.catalog import Catalog
from drafting.catalog.parquet import name_texts, open_parquet

COLUMNS = ("user", "item", "timestamp")


def load_parquet(path: Path, catalog: Catalog) -> Interactions:
    """Read interactions in any order and sort each user's by time; equal times keep the order of the file.

    Raises:
        InteractionError: pyarrow is not installed, the file is not parquet, lacks a column or a value, or names an unknown item.
    """
    row_of: dict[str, int] = {}
    rows, indices, times = [], [], []
    with open_parquet(path, "interactions", InteractionError) as file:
        import pyarrow as pa
        import pyarrow.compute as pc

        missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
        if missing:
            raise InteractionError(f"{path} has no column {missing[0]!r}: it needs {', '.join(COLUMNS)}.")
        for batch in file.iter_batches(columns=list(COLUMNS)):
            columns = [batch.column(name) for name in COLUMNS]
            if any(column.null_count for column in columns):
                raise InteractionError(f"{path} has interactions without a user, an item or a timestamp.")
            names = [name_texts(column, path, name, InteractionError) for column, name in zip(columns, COLUMNS[:2], strict=False)]
            users, items = map(pc.dictionary_encode, names)
            row_of_user = [row_of.setdefault(user, len(row_of)) for user in users.dictionary.to_pylist()]
            seconds = columns[2].cast(pa.int64()) if pa.types.is_temporal(columns[2].type) else columns[2]
            rows.append(np.array(row_of_user, np.int64)[users.indices.to_numpy()])
            indices.append(_indices(items.dictionary.to_pylist(), catalog, path)[items.indices.to_numpy()])
            times.append(seconds.cast(pa.float64()).to_numpy())
    if not rows:
        raise InteractionError(f"{path} holds no interactions.")
    return by_user(tuple(row_of), np.concatenate(rows), np.concatenate(indices), np.concatenate(times))


def _indices(names: list[str], catalog: Catalog, path: Path) -> npt.NDArray[np.int32]:
    indices = catalog.indices_of(names)
    if (missing := np.flatnonzero(indices < 0)).size:
        raise InteractionError(f"{path} names item {names[missing[0]]!r}, but the catalog has no such item.")
    return indices.astype(np.int32)
