"""Interactions from parquet: columns `user`, `item` and `timestamp`, read batch by batch.

Invariant: the same interactions give the same arrays as from JSONL; no Python object lives longer than its batch, except the users' names.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from drafting.alignment.data.interactions import InteractionError, Interactions, by_user
from drafting.catalog.catalog import Catalog

COLUMNS = ("user", "item", "timestamp")


def load_parquet(path: Path, catalog: Catalog) -> Interactions:
    """Read parquet in any order; each user's items are put in order of time, equal times as they came.

    Raises:
        InteractionError: pyarrow is not installed, the file is no parquet or lacks a column or a value, or names an unknown item.
    """
    try:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InteractionError(f"Reading {path} needs pyarrow ({error}): pip install 'atspeed-server[train]', or give JSONL.") from error
    row_of: dict[str, int] = {}
    parts: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float64]]] = []
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
            if missing:
                raise InteractionError(f"{path} has no column {missing[0]!r}: it needs {', '.join(COLUMNS)}.")
            for batch in file.iter_batches(columns=list(COLUMNS)):
                columns = [batch.column(name) for name in COLUMNS]
                if any(column.null_count for column in columns):
                    raise InteractionError(f"{path} has interactions without a user, an item or a timestamp.")
                users, items = (pc.dictionary_encode(pc.cast(column, pa.string())) for column in columns[:2])
                row_of_user = [row_of.setdefault(user, len(row_of)) for user in users.dictionary.to_pylist()]
                index_of_item = _indices(items.dictionary.to_pylist(), catalog, path)
                seconds = columns[2].cast(pa.int64()) if pa.types.is_temporal(columns[2].type) else columns[2]
                parts.append(
                    (
                        np.array(row_of_user, np.int64)[users.indices.to_numpy()],
                        index_of_item[items.indices.to_numpy()],
                        seconds.cast(pa.float64()).to_numpy(),
                    )
                )
    except (pa.ArrowException, OSError) as error:
        raise InteractionError(f"The interactions {path} cannot be read: {str(error).splitlines()[0]}") from error
    if not parts:
        raise InteractionError(f"{path} holds no interactions.")
    rows, indices, times = (np.concatenate([part[place] for part in parts]) for place in range(3))
    return by_user(tuple(row_of), rows, indices, times)


def _indices(names: list[str], catalog: Catalog, path: Path) -> npt.NDArray[np.int32]:
    indices = catalog.indices_of(names)
    if (missing := np.flatnonzero(indices < 0)).size:
        raise InteractionError(f"{path} names item {names[missing[0]]!r}, but the catalog has no such item.")
    return indices.astype(np.int32)
