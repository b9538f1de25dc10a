"""A set of items: its bits, against arrays of truth values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drafting.trie import item_set
from drafting.trie.item_set import ItemSet, intersection, union


@given(st.integers(1, 70), st.integers(0, 10**6))
def test_sets_of_items_are_sets(items: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.random((2, items)) < 0.5
    a, b = ItemSet.of(left), ItemSet.of_items(np.flatnonzero(right), items)
    assert (len(a), len(a.complement)) == (left.sum(), items - left.sum())
    assert (intersection([a, b]).members() == left & right).all()
    assert (union([a, b, a]).members() == left | right).all()
    assert (a.complement.members() == ~left).all()
    assert a.contains(np.arange(items)).tolist() == [item in a for item in range(items)] == left.tolist()


def test_a_set_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 2 bytes"):
        ItemSet(np.zeros(3, np.uint8), 9)


def test_its_items_are_counted_once(monkeypatch: pytest.MonkeyPatch):
    few = ItemSet.of_items([1, 5, 6], 10)
    assert len(few) == 3
    monkeypatch.delattr(item_set.np, "bitwise_count")
    assert len(few) == 3
