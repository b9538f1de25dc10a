"""Which interactions stay: the k-core, and one of each group of equal ones.

Invariant: the k-core is the largest set of interactions in which every user and every item has at least k of them.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from drafting.array_types import BoolArray, DoubleArray, IntArray

Numbers = npt.NDArray[np.integer]


def k_core(users: Numbers, items: Numbers, k: int) -> tuple[BoolArray, int]:
    """The interactions of the k-core.

    Args:
        users, items: `[n]`, numbers from 0.

    Returns:
        Which interactions are in it, `[n]`, and how many rounds it took.
    """
    left = np.arange(len(users))
    rounds = 0
    while k > 1 and len(left):
        enough = (np.bincount(users[left]) >= k)[users[left]] & (np.bincount(items[left]) >= k)[items[left]]
        rounds += 1
        if enough.all():
            break
        left = left[enough]
    return _among(left, len(users)), rounds


def last_of_same(users: Numbers, items: Numbers, times: DoubleArray, kinds: Numbers | None = None) -> BoolArray:
    """The last of each group of interactions of the same user, item, time and kind, `[n]`."""
    keys = [times, items, users] if kinds is None else [kinds, times, items, users]
    # The sort is stable, so the last of a group in it is the last of the source.
    order = np.lexsort(keys)
    is_last = np.append(~_same_as_next(keys, order), True)
    return _among(order[is_last[: len(order)]], len(order))


def of_pairs(users: Numbers, items: Numbers, times: DoubleArray, *, first: bool) -> BoolArray:
    """One interaction of each user with each item, the first or the last by time, `[n]`."""
    order = np.lexsort([times, items, users])
    differs = ~_same_as_next([items, users], order)
    is_kept = np.append(True, differs) if first else np.append(differs, True)
    return _among(order[is_kept[: len(order)]], len(order))


def _same_as_next(keys: Sequence[npt.NDArray[np.generic]], order: IntArray) -> BoolArray:
    """Whether interactions in an order, `[n]`, have the same keys, `[n]` each, as the next one, `[n - 1]`."""
    same = np.ones(max(0, len(order) - 1), np.bool_)
    for key in keys:
        same &= key[order][1:] == key[order][:-1]
    return same


def _among(rows: IntArray, size: int) -> BoolArray:
    """Which of `size` rows are among some."""
    found = np.zeros(size, np.bool_)
    found[rows] = True
    return found
