"""Places for fresh items, as one request asked for them.

Invariant: what is fresh is decided once, when the request comes, by the day that it is then; search, labels and note go by that day.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drafting.array_types import BoolArray, IntArray
from drafting.beam.rule import SearchRule, Verification
from drafting.catalog.catalog import Catalog
from drafting.catalog.freshness import ADDED_AT, days_of_items, today
from server.errors import InvalidRequest, NoItemTimes
from server.schemas.choices import FreshBody
from server.submit import FreshPlaces
from verification.result import RankedItem


@dataclass(frozen=True)
class FreshItems:
    """The fresh items of one list.

    Attributes:
        fresh: for each line of the list, whether its item is fresh.
        missing: reserved places that too few fresh identifiers were found for.
    """

    fresh: tuple[bool, ...]
    missing: int


def fresh_places(body: FreshBody, catalog: Catalog, rule: SearchRule) -> FreshPlaces:
    """The request to the engine.

    Raises:
        InvalidRequest: the list is sampled.
        NoItemTimes: the catalog does not say how old its items are.
    """
    if rule.verification is not Verification.STRICT:
        raise InvalidRequest("Places for fresh items are for strict lists: leave fresh out, or choose strict verification.")
    if ADDED_AT not in catalog.attributes:
        raise NoItemTimes(f"No item of the catalog has the attribute {ADDED_AT}, by which fresh items are known.")
    return FreshPlaces(today() - body.max_age_days, body.min)


def are_fresh(places: FreshPlaces, catalog: Catalog, items: IntArray) -> BoolArray:
    """`[items]` bool, which of some catalog indices are of fresh items."""
    fresh: BoolArray = days_of_items(catalog.attributes[ADDED_AT], items) >= places.since
    return fresh


def fresh_items(places: FreshPlaces, catalog: Catalog, items: Sequence[RankedItem]) -> FreshItems:
    """Which items of a list are fresh."""
    indices = np.array([item.item for item in items], np.int64)
    fresh: list[bool] = are_fresh(places, catalog, indices).tolist()
    identifiers = {item.rank for item, is_fresh in zip(items, fresh, strict=True) if is_fresh}
    return FreshItems(tuple(fresh), max(0, places.places - len(identifiers)))
