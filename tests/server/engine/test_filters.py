"""The sets that requests choose by filters and age: worked out once, combined rightly, and gone with what they were made of."""

import numpy as np
import pytest

from drafting.catalog.freshness import NEVER
from drafting.trie.item_set import ItemSet
from server.engine.filters import MOST_CHOICES, EngineFilters
from server.submit import FilterChoice

DAYS = np.array([100, 101, 102, NEVER, 103, 99, NEVER, 103], np.int32)
EVEN = FilterChoice(all=("even",))


@pytest.fixture
def filters() -> EngineFilters:
    filters = EngineFilters(len(DAYS), DAYS)
    filters.put("even", ItemSet.of(np.arange(len(DAYS)) % 2 == 0).bits.tobytes())
    return filters


def items(found: ItemSet) -> list[int]:
    return np.flatnonzero(found.members()).tolist()


def test_fresh_items_with_and_without_a_filter(filters: EngineFilters) -> None:
    assert items(filters.find(None, 102)) == [2, 4, 7]
    assert items(filters.find(EVEN, 102)) == [2, 4]
    assert items(filters.find(None, 104)) == []
    assert items(filters.find(EVEN)) == [0, 2, 4, 6]


def test_those_who_choose_alike_share_one_set(filters: EngineFilters) -> None:
    assert filters.find(EVEN, 101) is filters.find(FilterChoice(all=("even",)), 101)
    assert filters.find(None, 101) is filters.find(None, 101)
    assert filters.find(EVEN) is not filters.find(EVEN, 101)


def test_a_filter_that_means_something_else_leaves_other_sets_alone(filters: EngineFilters) -> None:
    fresh, both = filters.find(None, 101), filters.find(EVEN, 101)
    filters.put("even", ItemSet.of_items([1, 2], len(DAYS)).bits.tobytes())
    assert filters.find(None, 101) is fresh
    assert items(both) == [2, 4]
    assert items(filters.find(EVEN, 101)) == [1, 2]


def test_no_more_sets_are_kept_than_may_be(filters: EngineFilters) -> None:
    oldest, kept = filters.find(None, -1), filters.find(EVEN)
    for day in range(2 * MOST_CHOICES):
        filters.find(EVEN, day)
        assert filters.find(EVEN) is kept
    assert len(filters._chosen) <= MOST_CHOICES
    assert filters.find(None, -1) is not oldest


def test_unknown_filters_and_days_that_no_item_has_are_refused(filters: EngineFilters) -> None:
    with pytest.raises(ValueError, match="The engine knows no filter 'odd'"):
        filters.find(FilterChoice(all=("odd",)), 3)
    with pytest.raises(ValueError, match="No item of the engine's catalog says when it came"):
        EngineFilters(3).find(None, 3)
