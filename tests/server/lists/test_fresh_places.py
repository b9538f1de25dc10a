"""The fresh items of a list are those that the search for its reserved places takes for fresh."""

import numpy as np

from drafting.catalog.builder import catalog_of
from drafting.catalog.freshness import ADDED_AT, added_days, added_since
from server.lists.fresh_places import are_fresh, fresh_items
from server.submit import FreshPlaces
from verification.result import RankedItem

DAY = 86_400
SINCE = 20_781  # 2026-11-24
ADDED = [SINCE * DAY, SINCE * DAY - 1, "2026-11-24T00:00:00Z", "2026-11-23", None, True, "never", SINCE * DAY + 0.5, 1e300]


def test_items_are_fresh_by_the_rule_of_the_search():
    catalog = catalog_of({f"item-{item}": (f"<a_{item}>",) for item in range(len(ADDED))}, attributes={ADDED_AT: ADDED})
    searched = added_since(added_days(catalog.attributes[ADDED_AT]), SINCE)
    assert np.flatnonzero(searched.members()).tolist() == [0, 2, 7]
    asked = np.array([8, 2, 2, 4, 0, 1])
    assert are_fresh(FreshPlaces(SINCE, 1), catalog, asked).tolist() == searched.contains(asked).tolist()


def test_places_are_of_identifiers():
    catalog = catalog_of(
        {f"item-{item}": (f"<a_{item // 2}>",) for item in range(6)}, attributes={ADDED_AT: [SINCE * DAY] * 3 + [None] * 3}
    )
    items = [RankedItem(0, -1.0, 1), RankedItem(1, -1.0, 1), RankedItem(2, -2.0, 2), RankedItem(4, -3.0, 3)]
    found = fresh_items(FreshPlaces(SINCE, 3), catalog, items)
    assert found.fresh == (True, True, True, False)
    assert found.missing == 1
    assert fresh_items(FreshPlaces(SINCE, 3), catalog, []).missing == 3
