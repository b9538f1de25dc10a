"""Lists of popular items against a ranking of the whole catalog by brute force."""

import math
import random
from collections import Counter

import numpy as np
import pytest

from drafting.array_types import BoolArray, IntArray
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from server.histories.popularity import Popularity
from server.lists import popular
from server.lists.popular import PopularItems
from tests.capping import Walk, check_caps, random_values

ITEMS = 60


def crowded_catalog(rng: random.Random) -> Catalog:
    """Some items share identifiers."""
    codes = [(f"<a_{rng.randrange(4)}>", f"<b_{rng.randrange(5)}>", f"<c_{rng.randrange(2)}>") for _ in range(ITEMS)]
    return catalog_of({f"item-{number}": code for number, code in enumerate(codes)})


def ranking(catalog: Catalog, weights: dict[int, float], allowed: set[int]) -> list[tuple[set[int], float]]:
    """All identifiers with an item that may be returned, with these items and the weight of all."""
    known: dict[tuple[str, ...], float] = {}
    for item, weight in weights.items():
        known[catalog.identifier(item)] = known.get(catalog.identifier(item), 0.0) + weight
    order = sorted(known, key=lambda identifier: -known[identifier])
    order += [code for item in sorted(allowed) if (code := catalog.identifier(item)) not in known]
    members = {code: {item for item in allowed if catalog.identifier(item) == code} for code in order}
    return [(members[code], known.get(code, 0.0)) for code in dict.fromkeys(order) if members[code]]


@pytest.mark.parametrize("seed", range(40))
def test_a_list_is_the_best_of_the_whole_ranking(seed: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(popular, "_ROWS_AT_ONCE", 7)
    rng = random.Random(seed)
    catalog = crowded_catalog(rng)
    chosen = rng.sample(range(ITEMS), rng.randrange(1, 25))
    # No two sums of them are equal.
    weights = {item: 2.0**-place for place, item in enumerate(chosen)}
    names = ("gone", *(f"item-{item}" for item in chosen))
    found = PopularItems.of(Popularity(names, (3.0, *weights.values())), catalog)
    allowed = set(rng.sample(range(ITEMS), rng.choice([3, 20, ITEMS])))
    reserved = set(rng.sample(range(ITEMS), 15))
    k, places = rng.randrange(1, 12), rng.randrange(0, 4)
    places = min(k, places)

    def among(items: set[int]) -> popular.Allowed:
        def check(asked: IntArray) -> BoolArray:
            return np.isin(asked, list(items))

        return check

    everything = ranking(catalog, weights, allowed)
    kept = [place for place, (items, _) in enumerate(everything) if items & reserved][:places]
    others = [place for place in range(len(everything)) if place not in kept][: k - len(kept)]
    total = sum(weights.values()) + catalog.identifiers
    expected = [
        (item, rank, math.log((everything[place][1] + 1) / total))
        for rank, place in enumerate(sorted(kept + others), start=1)
        for item in sorted(everything[place][0])
    ]
    got = found.list(k, among(allowed), places, among(reserved))
    assert [(line.item, line.rank) for line in got] == [line[:2] for line in expected]
    assert [line.score for line in got] == pytest.approx([line[2] for line in expected])


@pytest.mark.parametrize("seed", range(8))
def test_a_list_with_caps_is_a_walk_over_the_whole_ranking(seed: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(popular, "_ROWS_AT_ONCE", 7)
    monkeypatch.setattr(popular, "_IDENTIFIERS_AT_ONCE", 2)
    rng, draw = random.Random(seed), np.random.default_rng(seed)
    codes = crowded_catalog(rng).codes.astype(np.int64)
    values = {name: random_values(ITEMS, draw) for name in ("brand", "genre")}
    names = {f"item-{number}": [f"<{code}>" for code in row] for number, row in enumerate(codes.tolist())}
    catalog = catalog_of(names, attributes=values)
    weights = {rng.randrange(ITEMS): float(rng.randrange(1, 50)) for _ in range(12)}
    found = PopularItems.of(Popularity(tuple(f"item-{item}" for item in weights), tuple(weights.values())), catalog)
    allowed, fresh = (np.array([rng.random() < part for _ in range(ITEMS)]) for part in (0.8, 0.2))
    order = [next(iter(members)) for members, _ in ranking(catalog, weights, {int(item) for item in np.flatnonzero(allowed)})]
    pairs = [(tuple(codes[item].tolist()), -float(place)) for place, item in enumerate(order)]
    at_most, k, places = {"brand": rng.randrange(1, 4), "genre": 2}, rng.randrange(3, 15), rng.randrange(0, 3)
    walk = Walk(codes, values, at_most, allowed)
    if places:
        walk.over(pairs, places, fresh)
    walk.over(pairs, k)
    got = found.list(k, lambda items: allowed[items], places, lambda items: fresh[items], at_most)
    assert [line.item for line in got] == [item for _, items in walk.ranked() for item in items]
    check_caps([line.item for line in got], values, at_most)


def test_a_list_with_caps_walks_the_ranking_once_and_no_further_than_it_must(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(popular, "_ROWS_AT_ONCE", 10)
    items, brand, k = 400, 20, 15
    names = {f"item-{item}": (f"<a_{item // 20}>", f"<b_{item % 20}>") for item in range(items)}
    catalog = catalog_of(names, attributes={"brand": [item // brand for item in range(items)]})
    asked: list[int] = []

    def everything(block: IntArray) -> BoolArray:
        asked.extend(block.tolist())
        return np.ones(len(block), bool)

    found = PopularItems.of(Popularity(("item-30",), (1.0,)), catalog)
    got = found.list(k, everything, diversity={"brand": 1})
    assert [line.item for line in got] == [30, 0, *(brand * number for number in range(2, k))]
    # Each item is asked of where its identifier is found, and as one of that identifier.
    assert max(Counter(asked).values()) == 2
    assert max(asked) < brand * k


def test_the_shares_of_all_identifiers_are_one():
    catalog = crowded_catalog(random.Random(1))
    found = PopularItems.of(Popularity(("item-1", "item-2"), (5.0, 1.0)), catalog)
    lines = found.list(100, lambda items: np.ones(len(items), bool))
    assert sum({line.rank: math.exp(line.score) for line in lines}.values()) == pytest.approx(1.0)
    assert len(lines) == ITEMS


def test_a_list_is_asked_of_in_blocks_however_long_it_is():
    items, k = 400, 200
    catalog = catalog_of({f"item-{item}": (f"<a_{item // 20}>", f"<b_{item % 20}>") for item in range(items)})
    asked: list[int] = []

    def everything(block: IntArray) -> BoolArray:
        asked.append(len(block))
        return np.ones(len(block), bool)

    popularity = Popularity(tuple(f"item-{item}" for item in range(300)), tuple(float(300 - item) for item in range(300)))
    got = PopularItems.of(popularity, catalog).list(k, everything)
    assert [(line.item, line.rank) for line in got] == [(item, item + 1) for item in range(k)]
    assert asked == [300, k]
