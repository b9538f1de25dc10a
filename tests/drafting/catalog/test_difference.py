"""The difference of two catalogs, against one item at a time."""

import numpy as np
import pytest

from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.catalog.difference import difference


def random_version(rng: np.random.Generator) -> Catalog:
    """Some of the same items, in any order, whose tokens, titles and attributes are now the same, now others, now missing."""
    names = [f"item-{number}" for number in rng.permutation(30)[: rng.integers(1, 30)]]
    codes, titles = rng.integers(3, size=(len(names), 2)), rng.integers(4, size=len(names))
    tokens = {name: [f"<{'ab'[level]}_{code}>" for level, code in enumerate(row)] for name, row in zip(names, codes, strict=True)}
    attributes = {"price": [[None, 1, 1.5, "1"][value] for value in rng.integers(4, size=len(names))]}
    if rng.random() < 0.5:
        attributes["tags"] = [[None, ["new"], [], {"a": 1}][value] for value in rng.integers(4, size=len(names))]
    return catalog_of(tokens, {name: f"Title {title}" for name, title in zip(names, titles, strict=True) if title}, attributes)


@pytest.mark.parametrize("seed", range(20))
def test_the_difference_is_that_of_each_item(seed: int) -> None:
    rng = np.random.default_rng(seed)
    old, new = random_version(rng), random_version(rng)
    found = difference(old, new)
    was = {name: (old.identifier(row), old.known_attributes(row)) for row, name in enumerate(old.item_ids)}
    now = {name: (new.identifier(row), new.known_attributes(row)) for row, name in enumerate(new.item_ids)}
    assert [new.item_ids[row] for row in found.added] == [name for name in now if name not in was]
    assert [old.item_ids[row] for row in found.removed] == [name for name in was if name not in now]
    assert [new.item_ids[row] for row in found.moved] == [name for name in now if name in was and now[name][0] != was[name][0]]
    assert [new.item_ids[row] for row in found.described] == [name for name in now if name in was and now[name][1] != was[name][1]]


def test_other_lengths_of_identifiers_move_all_items() -> None:
    old, new = catalog_of({"a": ["<x>"], "b": ["<y>"]}), catalog_of({"b": ["<y>", "<y>"], "c": ["<x>", "<y>"]})
    assert difference(old, new).moved.tolist() == [0]
