"""Which interactions stay: the k-core, and one of each group of equal ones.

Invariant: the k-core is the largest set of interactions in which every user and every item has at least k of them.
"""

import numpy as np
import numpy.typing as npt

from drafting.array_types import BoolArray, DoubleArray

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
    kept = np.zeros(len(users), np.bool_)
    kept[left] = True
    return kept, rounds


def last_of_same(users: Numbers, items: Numbers, times: DoubleArray, kinds: Numbers | None = None) -> BoolArray:
    """The last of each group of interactions of the same user, item, time and kind, `[n]`."""
    keys = [times, items, users] if kinds is None else [kinds, times, items, users]
    order = np.lexsort(keys)
    new = np.ones(len(order), np.bool_)
    for key in keys:
        new[:-1] &= key[order][1:] == key[order][:-1]
    new = ~new
    # The sort is stable, so the last of a group in it is the last of the source.
    new[-1:] = True
    kept = np.zeros(len(order), np.bool_)
    kept[order[new]] = True
    return kept


def of_pairs(users: Numbers, items: Numbers, times: DoubleArray, *, first: bool) -> BoolArray:
    """One interaction of each user with each item, the first or the last by time, `[n]`."""
    order = np.lexsort([times, items, users])
    same = (users[order][1:] == users[order][:-1]) & (items[order][1:] == items[order][:-1])
    ends = np.append(True, ~same) if first else np.append(~same, True)
    kept = np.zeros(len(order), np.bool_)
    kept[order[ends[: len(order)]]] = True
    return kept
