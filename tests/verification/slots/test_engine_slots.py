"""How many node slots an engine has: enough for the widest request of all."""

from contextlib import nullcontext

import numpy as np
import pytest

from drafting.beam.rule import MAX_BEAM_WIDTH, WIDEST_BEAM
from drafting.neighbours.candidates import MOST_CANDIDATES
from drafting.trie.item_set import ItemSet
from drafting.trie.item_trie import ItemTrie
from tests.models import random_catalog
from verification.blend import Blend
from verification.engine.reserved import nodes_needed
from verification.request import BeamRequest, ReservedPlaces
from verification.slots import engine_slots
from verification.slots.engine_slots import CatalogTooLarge, check_capacity, node_capacity


def widest(trie: ItemTrie, seed: int) -> BeamRequest:
    """The widest beam, places for any item, and as many candidates as may be."""
    rng = np.random.default_rng(seed)
    items = rng.permutation(len(trie.items))[:MOST_CANDIDATES]
    return BeamRequest(
        "widest",
        np.ones(1, np.int64),
        MAX_BEAM_WIDTH,
        MAX_BEAM_WIDTH,
        reserved=ReservedPlaces(1, ItemSet.of(np.ones(len(trie.items), bool))),
        blend=Blend.of(trie, items, np.ones(len(items)), 1.0),
    )


@pytest.mark.parametrize(("depth", "codes"), [(1, 200), (2, 40), (3, 8), (4, 30)])
def test_the_widest_request_fits_alone(depth: int, codes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the table of continuations leaves room for no more."""
    monkeypatch.setattr(engine_slots, "TABLE_BYTES", 0)
    catalog = random_catalog(items=3000, depth=depth, codes=codes, seed=depth)
    trie = ItemTrie.of(catalog.trie, np.arange(len(catalog.tokens)), "cpu")
    assert nodes_needed(widest(trie, depth), trie) <= node_capacity(trie)


def trie_of(items: int, depth: int, codes: int) -> ItemTrie:
    catalog = random_catalog(items=items, depth=depth, codes=codes)
    return ItemTrie.of(catalog.trie, np.arange(len(catalog.tokens)), "cpu")


def test_a_table_may_grow_as_large_as_that_of_the_catalog_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine starts with any catalog, so its next version takes over, too, however many children a prefix has."""
    before, after = trie_of(300, 2, 40), trie_of(300, 2, 60)
    monkeypatch.setattr(engine_slots, "MOST_TABLE_BYTES", 4 * 1000 * max(before.max_children) - 1)
    check_capacity(before, before, 1000, 100)
    with pytest.raises(CatalogTooLarge, match="start a server with it"):
        check_capacity(after, before, 1000, 100)


@pytest.mark.parametrize(("nodes", "holds"), [(100, False), (1000, False), (20_000, True)])
def test_slots_that_hold_a_catalog_hold_its_like(nodes: int, holds: bool) -> None:
    """Also where they are fewer than the widest beams would take, of narrower levels; of wider levels they hold less."""
    small, large = trie_of(300, 3, 12), trie_of(3000, 3, 60)
    for trie, chosen_for in ((small, small), (large, large), (small, large)):
        check_capacity(trie, chosen_for, nodes, WIDEST_BEAM)
    with nullcontext() if holds else pytest.raises(CatalogTooLarge, match="start a server with it"):
        check_capacity(large, small, nodes, WIDEST_BEAM)
