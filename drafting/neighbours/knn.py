"""Item-kNN: cosine similarities of items by their users, some rows at a time.

Invariant: pairs of items are counted once for all shrinkages, and of a block's rows no more is kept than is asked for, so memory is that
of what is kept. What would take more than is free, or hours, is refused before anything is counted.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from drafting.alignment.data.interactions import Interactions
from drafting.array_types import IntArray
from drafting.memory import free_memory
from drafting.neighbours.build import NEIGHBOURS, largest, stacked, user_item_matrix
from drafting.neighbours.model import NeighbourError

# 40 million are counted in a second.
MOST_PAIRS = 200_000_000_000
_PAIRS_AT_A_TIME = 1 << 22
# An index and a value of 4 bytes each, twice, because there is a copy while blocks are put together.
_BYTES_A_NEIGHBOUR = 16
# The share of the free memory that is filled where neighbours are left out to fit: less may be free by the time all is made.
_ROOM = 0.8


class NoRoomError(NeighbourError):
    """There is no memory for so many neighbours; the message is a sentence."""


def knn(known: Interactions, items: int, shrinks: Sequence[float], kept: int | None = None) -> list[csr_array]:
    """Cosine similarities of items, `[items, items]` float32, sparse, for each of some shrinkages.

    With n_i the number of users who have met item i, and n_ij of those who have met both, the similarity of i and j is
    n_ij / (sqrt(n_i * n_j) + shrink), and that of an item with itself 0.

    Args:
        shrinks: at least 0; one above it weakens similarities that rest on few users.
        kept: only so many largest ones of a row, equal ones by index; None for all.

    Raises:
        NeighbourError: there are too many pairs of items that a user has met.
        NoRoomError: there is no memory for what is kept.

    Source: "Item-Based Top-N Recommendation Algorithms" (Deshpande and Karypis, 2004), with the shrinkage in the denominator as in "Are We
    Really Making Much Progress?" (Ferrari Dacrema et al., 2019).
    """
    met = user_item_matrix(known, items)
    users = csr_array(met.T)
    counted, bounds = _bounds(met)
    _check_pairs(int(counted.sum()))
    _check_room(_held(bounds, kept) * len(shrinks))
    popularity = np.diff(users.indptr).astype(np.float32)
    blocks: list[list[csr_array]] = [[] for _ in shrinks]
    for start, stop in _spans(bounds):
        together = users[start:stop] @ met
        row = np.repeat(np.arange(start, stop), np.diff(together.indptr))
        mean = np.sqrt(popularity[row] * popularity[together.indices])
        common = np.where(row == together.indices, np.float32(0), together.data)
        for shrink, made in zip(shrinks, blocks, strict=True):
            similar = csr_array((common / (mean + np.float32(shrink)), together.indices, together.indptr), shape=together.shape)
            made.append(largest(similar, kept))
    return [stacked(made) for made in blocks]


def most_kept(known: Interactions, items: int, matrices: int) -> int | None:
    """The most neighbours of each item for which so many matrices fit into the memory that is free, at least as many as a model is served
    with; None where all fit.

    Raises:
        NoRoomError: not even those that a model is served with fit.
    """
    bounds = _bounds(user_item_matrix(known, items))[1]
    room = free_memory() // (_BYTES_A_NEIGHBOUR * matrices)
    if _held(bounds, None) <= room:
        return None
    _check_room(_held(bounds, NEIGHBOURS) * matrices)
    kept = bisect_right(range(items), _ROOM * room, key=lambda each: _held(bounds, each)) - 1
    return max(kept, NEIGHBOURS)


def _bounds(met: csr_array) -> tuple[IntArray, IntArray]:
    """By item: how many items of its users are counted, and how many different ones there can be among them."""
    counted = met.T @ np.diff(met.indptr)
    return counted, np.minimum(counted, met.shape[1])


def _held(bounds: IntArray, kept: int | None) -> int:
    """Neighbours in a matrix, of which each item has at most so many as `bounds` says."""
    return int(bounds.sum() if kept is None else np.minimum(bounds, kept).sum())


def _check_pairs(counted: int) -> None:
    if counted > MOST_PAIRS:
        raise NeighbourError(
            f"Item-kNN would count {counted:,} pairs of items that one user has met, which takes hours (at most {MOST_PAIRS:,} are "
            "counted): most are those of the users with the longest histories, so leave these users, or their oldest interactions, out."
        )


def _check_room(held: int) -> None:
    if (needed := held * _BYTES_A_NEIGHBOUR) > (free := free_memory()):
        raise NoRoomError(
            f"Item-kNN would keep up to {held:,} neighbours ({needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free): "
            "use a machine with more memory."
        )


def _spans(bounds: IntArray) -> list[tuple[int, int]]:
    """Ranges of rows with about so many entries as are worked on at a time, at least one row each."""
    group = (np.cumsum(bounds) - bounds) // _PAIRS_AT_A_TIME
    starts = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(bounds)]
    return list(pairwise(starts))
