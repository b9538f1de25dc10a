"""The k-core against removing one interaction's user or item after another, and what counts as the same interaction."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from drafting.preparation.core import k_core, last_of_same, of_pairs

pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40)
events = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=30)


def slow_core(found: list[tuple[int, int]], k: int) -> list[int]:
    """The rows that stay when one name with too few is removed at a time."""
    left = list(range(len(found)))
    while True:
        poor = [
            (side, name)
            for side in (0, 1)
            for name in {found[row][side] for row in left}
            if sum(found[row][side] == name for row in left) < k
        ]
        if not poor:
            return left
        side, name = poor[-1]
        left = [row for row in left if found[row][side] != name]


@given(pairs, st.integers(1, 5))
def test_the_core_is_what_slow_removal_leaves(found: list[tuple[int, int]], k: int) -> None:
    users, items = np.array(found, np.int64).reshape(-1, 2).T
    kept, rounds = k_core(users, items, k)
    assert np.flatnonzero(kept).tolist() == slow_core(found, k)
    assert rounds <= 12


@given(events)
def test_of_the_same_the_last_stays(found: list[tuple[int, int, int, int]]) -> None:
    users, items, times, kinds = np.array(found, np.int64).T
    last = {event: row for row, event in enumerate(found)}
    assert np.flatnonzero(last_of_same(users, items, times.astype(float), kinds)).tolist() == sorted(last.values())
    last_without = {event[:3]: row for row, event in enumerate(found)}
    assert np.flatnonzero(last_of_same(users, items, times.astype(float))).tolist() == sorted(last_without.values())


@given(events)
def test_of_a_pair_the_first_or_the_last_by_time_stays(found: list[tuple[int, int, int, int]]) -> None:
    users, items, times, _ = np.array(found, np.int64).T
    by_time = sorted(range(len(found)), key=lambda row: (found[row][2], row))
    last = {found[row][:2]: row for row in by_time}
    first = {found[row][:2]: row for row in reversed(by_time)}
    assert np.flatnonzero(of_pairs(users, items, times.astype(float), first=False)).tolist() == sorted(last.values())
    assert np.flatnonzero(of_pairs(users, items, times.astype(float), first=True)).tolist() == sorted(first.values())
