"""The lines of a list: those of all items together are those of each item alone."""

from dataclasses import replace

import numpy as np

from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.text_column import ItemIndex, TextColumn
from server.lists.lines import catalog_line, item_lines
from tests.models import random_catalog
from verification.result import BlendedList, RankedItem, Source

ITEMS = 40
TITLES = [None, "Plain", "Größe", 7, "half of a pair: \ud83d", ["a list"], "", "\u2028"]


def test_all_lines_together_are_each_items_own() -> None:
    """Titles and ids of every kind, also those of catalogs of earlier days, which no client can be told."""
    titles = [TITLES[item % len(TITLES)] for item in range(ITEMS)]
    names = [f"é-{item}" if item % 3 else f"item-{item}" if item else "\udc00" for item in range(ITEMS)]
    catalog = random_catalog(items=ITEMS)
    columns = {"title": AttributeColumn.of_values(titles), "few": AttributeColumn.of_values([None] * (ITEMS - 1) + [3])}
    catalog = replace(catalog, index=ItemIndex.of(TextColumn.of(names)), attributes=columns)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(ITEMS)[: rng.integers(0, ITEMS)].tolist()
        items = [RankedItem(item, -float(rank), rank) for rank, item in enumerate(chosen, 1)]
        alone = [catalog_line(catalog, item.item) | {"score": item.score, "rank": item.rank} for item in items]
        for line in alone:
            line["identifier"] = list(line["identifier"])
        assert item_lines(catalog, items) == alone
        brief = [{name: line[name] for name in ("item_id", "score", "rank")} for line in alone]
        assert item_lines(catalog, items, brief=True) == brief
        told = [line["attributes"] for line in item_lines(catalog, items, ["few", "title"])]
        known = [catalog.known_attributes(item.item) for item in items]
        assert told == known


def test_brief_lines_keep_what_places_and_blends_say() -> None:
    items, blend = [RankedItem(3, -1.0, 1), RankedItem(5, -2.0, 2)], BlendedList((0.5, -1.5), (Source.BOTH, Source.MODEL))
    assert item_lines(random_catalog(items=ITEMS), items, fresh=(True, False), blend=blend, brief=True) == [
        {"item_id": "item-3", "score": -1.0, "rank": 1, "fresh": True, "blend_score": 0.5, "source": "both"},
        {"item_id": "item-5", "score": -2.0, "rank": 2, "blend_score": -1.5, "source": "model"},
    ]


def test_texts_alone_are_told_as_each_is() -> None:
    catalog = random_catalog(items=ITEMS)
    columns = {"title": AttributeColumn.of_values([f"title {item}" for item in range(ITEMS)])}
    catalog = replace(catalog, attributes=columns)
    assert catalog.titles_of(np.array([3, 1, 3])) == ["title 3", "title 1", "title 3"]
