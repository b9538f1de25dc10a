"""A set of items: its bits, against sets of Python's own."""

import numpy as np
import pytest

from drafting.trie import item_set
from drafting.trie.item_set import ItemSet, intersection, union


@pytest.mark.parametrize("items", [1, 8, 9, 100])
def test_it_is_the_set_that_its_items_make(items: int):
    rng = np.random.default_rng(items)
    first, second = [set(np.flatnonzero(rng.random(items) < 0.5).tolist()) for _ in range(2)]
    one, two = [ItemSet.of_items(sorted(each), items) for each in (first, second)]
    for found, expected in (
        (one, first),
        (one.complement, set(range(items)) - first),
        (intersection([one, two]), first & second),
        (union([one, two]), first | second),
    ):
        assert len(found) == len(found) == len(expected)
        assert set(np.flatnonzero(found.members()).tolist()) == {item for item in range(items) if item in found} == expected


def test_its_items_are_counted_once(monkeypatch: pytest.MonkeyPatch):
    few = ItemSet.of_items([1, 5, 6], 10)
    assert len(few) == 3
    monkeypatch.delattr(item_set.np, "bitwise_count")
    assert len(few) == 3
