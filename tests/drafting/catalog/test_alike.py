"""Items that share the beginning of an item's identifier, against a look at all items."""

import pytest

from drafting.catalog.alike import alike
from tests.models import random_catalog


@pytest.mark.parametrize("most", [1, 3, 1000])
def test_each_item_is_told_once_by_the_most_that_it_shares(most: int) -> None:
    catalog = random_catalog(items=120, depth=3, codes=4)
    for index in range(0, len(catalog), 7):
        mine = catalog.identifier(index)
        expected: dict[int, list[int]] = {3: [], 2: [], 1: []}
        for other in range(len(catalog)):
            shared = next((depth for depth in (3, 2, 1) if catalog.identifier(other)[:depth] == mine[:depth]), None)
            if shared and other != index:
                expected[shared].append(other)
        found = alike(catalog, index, most)
        assert [(each.depth, each.count, each.items.tolist()) for each in found] == [
            (depth, len(others), others[:most]) for depth, others in expected.items()
        ]
