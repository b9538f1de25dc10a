"""Making neighbour models in closed form: EASE, and what is kept of a matrix of weights; item-kNN is in `knn.py`.

Invariant: a matrix has a row for each item that a history may hold and a column for each that may follow, so the scores of users are the
product of their decayed histories with it; its diagonal is zero. Needs scipy, and for EASE the memory of a dense matrix: `ease_bytes` says
how much before anything is allocated.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from scipy.linalg import lapack
from scipy.sparse import csr_array

from drafting.alignment.data.interactions import Interactions
from drafting.array_types import FloatArray, IntArray
from drafting.catalog.text_column import TextColumn
from drafting.memory import free_memory
from drafting.neighbours.model import NeighbourError, NeighbourModel
from drafting.neighbours.source import Source
from drafting.trie.arrays import offsets_of

Weights: TypeAlias = FloatArray | csr_array
# Neighbours that are kept of each item: what a served list of a few hundred candidates can come from.
NEIGHBOURS = 200
# Above so many items the inverse takes hours.
MOST_EASE_ITEMS = 46_000
_ROWS_AT_A_TIME = 1024


def user_item_matrix(known: Interactions, items: int) -> csr_array:
    """Which user has met which item, `[users, items]` float32 of ones."""
    pairs = np.unique(np.stack([known.owners, known.items.astype(np.int64)]), axis=1)
    return csr_array((np.ones(pairs.shape[1], np.float32), (pairs[0], pairs[1])), shape=(len(known.users), items))


def ease_bytes(items: int) -> int:
    """Memory that `ease` takes for so many items, in bytes: a dense float32 matrix, and its share of blocks that are copied."""
    return 4 * items * items + 8 * _ROWS_AT_A_TIME * items


def ease_refusal(items: int) -> str | None:
    """Why `ease` is not to be tried for so many items on this machine now, as a sentence without its end; None if it is."""
    needed, free = ease_bytes(items), free_memory()
    if items <= MOST_EASE_ITEMS and needed < free:
        return None
    return f"EASE would invert a matrix of {items:,} x {items:,} items ({needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free)"


def ease(known: Interactions, items: int, l2: float) -> FloatArray:
    """The weights of EASE, `[items, items]` float32, dense: each item predicted from the others by ridge regression, in closed form.

    With X the matrix of which user has met which item and P = (X^T X + l2 * I)^-1, the weight of item j behind item i is -P_ij / P_jj, and
    that of an item behind itself 0.

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
    weights: Weights,
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
    found = largest(weights, kept)
    if not found.nnz:
        raise NeighbourError("No item has a neighbour: no user has met two of the catalog's items.")
    arrays = found.indptr.astype(np.int64), found.indices.astype(np.int32), found.data.astype(np.float32)
    return NeighbourModel(TextColumn.of(item_ids), *arrays, decay, window, kind, fit, source)


def largest(weights: Weights, kept: int | None) -> csr_array:
    """The `kept` largest positive weights of each row, equal ones by index, or all positive ones; their columns ascend within a row."""
    return stacked([_largest(weights[start : start + _ROWS_AT_A_TIME], kept) for start in range(0, weights.shape[0], _ROWS_AT_A_TIME)])


def stacked(blocks: Sequence[csr_array]) -> csr_array:
    """Rows of blocks, one below the other."""
    counts = np.concatenate([np.diff(block.indptr) for block in blocks])
    columns = np.concatenate([block.indices for block in blocks])
    values = np.concatenate([block.data for block in blocks])
    return csr_array((values, columns, offsets_of(counts)), shape=(len(counts), blocks[0].shape[1]))


def _largest(block: Weights, kept: int | None) -> csr_array:
    kept = block.shape[1] if kept is None else kept
    row, column, value = _entries(block, kept)
    if kept < block.shape[1]:
        # Row by row the largest first, equal ones by index; then those that are kept, by index again.
        order = np.lexsort((column, -value, row))
        row, column, value = row[order], column[order], value[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        row, column, value = row[rank < kept], column[rank < kept], value[rank < kept]
    order = np.lexsort((column, row))
    indptr = offsets_of(np.bincount(row, minlength=block.shape[0]))
    return csr_array((value[order], column[order].astype(np.int32), indptr), shape=block.shape)


def _entries(block: Weights, kept: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Row, column and value of positive entries of some rows: of a dense block only the `kept` largest of each, and what equals them."""
    if isinstance(block, np.ndarray):
        least = np.maximum(np.partition(block, -kept, axis=1)[:, -kept], 0) if kept < block.shape[1] else np.zeros(len(block), np.float32)
        row, column = np.nonzero((block >= least[:, None]) & (block > 0))
        return row, column, block[row, column]
    entries = block.tocoo()
    positive = entries.data > 0
    return entries.row[positive].astype(np.int64), entries.col[positive].astype(np.int64), entries.data[positive]
