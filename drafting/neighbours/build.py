"""Making neighbour models in closed form: item-kNN and EASE.

Invariant: a matrix has a row for each item that a history may hold and a column for each that may follow, so the scores of users are the
product of their decayed histories with it; its diagonal is zero. Needs scipy, and for EASE the memory of a dense matrix: `ease_bytes` says
how much before anything is allocated.
"""

from collections.abc import Iterable

import numpy as np
import psutil
from scipy.linalg import lapack
from scipy.sparse import csr_array

from drafting.alignment.data.interactions import Interactions
from drafting.array_types import FloatArray, IntArray
from drafting.catalog.text_column import TextColumn
from drafting.neighbours.model import NeighbourError, NeighbourModel
from drafting.neighbours.source import Source
from drafting.trie.arrays import offsets_of

# Neighbours that are kept of each item: what a served list of a few hundred candidates can come from.
NEIGHBOURS = 200
# Above so many items the inverse takes hours.
MOST_EASE_ITEMS = 46_000
_ROWS_AT_A_TIME = 1024


def user_item_matrix(known: Interactions, items: int) -> csr_array:
    """Which user has met which item, `[users, items]` float32 of ones."""
    pairs = np.unique(np.stack([known.owners, known.items.astype(np.int64)]), axis=1)
    return csr_array((np.ones(pairs.shape[1], np.float32), (pairs[0], pairs[1])), shape=(len(known.users), items))


def knn(known: Interactions, items: int, shrink: float) -> csr_array:
    """Cosine similarities of items by their users, `[items, items]` float32, sparse.

    Args:
        shrink: added to the geometric mean of the users of both items, which is what common users are divided by; it weakens similarities
            that rest on few users.

    Source: "Item-Based Top-N Recommendation Algorithms" (Deshpande and Karypis, 2004), with the shrinkage of Bell and Koren (2007).
    """
    met = user_item_matrix(known, items)
    counts = np.asarray(met.sum(axis=0))
    together = (met.T @ met).tocoo()
    apart = together.row != together.col
    row, column, common = together.row[apart], together.col[apart], together.data[apart]
    similar = common / (np.sqrt(counts[row] * counts[column]) + np.float32(shrink))
    return csr_array((similar.astype(np.float32), (row, column)), shape=(items, items))


def ease_bytes(items: int) -> int:
    """Memory that `ease` takes for so many items, in bytes: a dense float32 matrix, and its share of blocks that are copied."""
    return 4 * items * items + 8 * _ROWS_AT_A_TIME * items


def ease_refusal(items: int) -> str | None:
    """Why `ease` is not to be tried for so many items on this machine now, as a sentence without its end; None if it is."""
    needed, free = ease_bytes(items), psutil.virtual_memory().available
    if items <= MOST_EASE_ITEMS and needed < free:
        return None
    return f"EASE would invert a matrix of {items:,} x {items:,} items ({needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free)"


def ease(known: Interactions, items: int, l2: float) -> FloatArray:
    """The weights of EASE, `[items, items]` float32, dense: each item predicted from the others by ridge regression, in closed form.

    Args:
        l2: the regularisation, above 0.

    Raises:
        NeighbourError: there are too many items for a dense inverse, or l2 is not above 0.

    Source: "Embarrassingly Shallow Autoencoders for Sparse Data" (Steck, 2019).
    """
    if not 0 < l2 < float("inf"):
        raise NeighbourError(f"The regularisation of EASE must be above 0, got {l2:g}.")
    if items > MOST_EASE_ITEMS:
        raise NeighbourError(f"EASE inverts a matrix of all items, which is out of reach for {items:,} of them: choose kNN.")
    met = user_item_matrix(known, items)
    gram = np.zeros((items, items), np.float32)
    transposed = csr_array(met.T)
    for start in range(0, items, _ROWS_AT_A_TIME):
        gram[start : start + _ROWS_AT_A_TIME] = (transposed[start : start + _ROWS_AT_A_TIME] @ met).toarray()
    gram[np.diag_indices(items)] += np.float32(l2)
    # LAPACK works in place on columns; the matrix is symmetric, so its transpose is the same matrix in columns.
    inverse, failed = lapack.spotrf(gram.T, lower=1, overwrite_a=1)
    if not failed:
        inverse, failed = lapack.spotri(inverse, lower=1, overwrite_c=1)
    if failed:
        raise NeighbourError(f"EASE with l2 = {l2:g} is not to be computed in single precision: raise l2.")
    weights: FloatArray = inverse.T
    scale = -1.0 / weights.diagonal()
    _mirror(weights)
    weights *= scale
    weights[np.diag_indices(items)] = 0.0
    return weights


def _mirror(matrix: FloatArray) -> None:
    """Copy what is above the diagonal of a matrix in rows below it, block by block."""
    for start in range(0, len(matrix), _ROWS_AT_A_TIME):
        stop = start + _ROWS_AT_A_TIME
        block = matrix[start:stop, start:stop]
        block[:] = np.triu(block) + np.triu(block, 1).T
        matrix[stop:, start:stop] = matrix[start:stop, stop:].T


def neighbour_model(
    weights: FloatArray | csr_array,
    item_ids: Iterable[str],
    *,
    kind: str,
    decay: float,
    window: int,
    kept: int = NEIGHBOURS,
    fit: str = "all",
    source: Source | None = None,
) -> NeighbourModel:
    """Keep the largest positive weights of each row of `[items, items]`, equal weights by index.

    Args:
        kind, decay, window, fit, source: as of `NeighbourModel`.
        kept: at most so many of a row.

    Raises:
        NeighbourError: no weight is positive.
    """
    rows: list[IntArray] = []
    columns, values = [], []
    for start in range(0, weights.shape[0], _ROWS_AT_A_TIME):
        row, column, value = _entries(weights[start : start + _ROWS_AT_A_TIME], kept)
        # Row by row the largest first, equal ones by index; then those that are kept, by index again.
        order = np.lexsort((column, -value, row))
        row, column, value = row[order], column[order], value[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        row, column, value = row[rank < kept], column[rank < kept], value[rank < kept]
        order = np.lexsort((column, row))
        rows.append(row[order] + start)
        columns.append(column[order].astype(np.int32))
        values.append(value[order].astype(np.float32))
    owners = np.concatenate(rows)
    if not len(owners):
        raise NeighbourError("No item has a neighbour: no user has met two of the catalog's items.")
    indptr = offsets_of(np.bincount(owners, minlength=weights.shape[0]))
    names, cells = TextColumn.of(item_ids), (np.concatenate(columns), np.concatenate(values))
    return NeighbourModel(names, indptr, *cells, decay, window, kind, fit, source)


def _entries(block: FloatArray | csr_array, kept: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Row, column and value of positive entries of some rows: of a dense block only the `kept` largest of each, and what equals them."""
    if isinstance(block, np.ndarray):
        least = np.maximum(np.partition(block, -kept, axis=1)[:, -kept], 0) if kept < block.shape[1] else np.zeros(len(block), np.float32)
        row, column = np.nonzero((block >= least[:, None]) & (block > 0))
        return row, column, block[row, column]
    entries = block.tocoo()
    positive = entries.data > 0
    return entries.row[positive].astype(np.int64), entries.col[positive].astype(np.int64), entries.data[positive]
