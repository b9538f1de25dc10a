"""The trie against dictionaries of prefixes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drafting.trie.item_trie import ItemTrie


@st.composite
def identifier_tables(draw: st.DrawFn) -> np.ndarray:
    depth, items, codes = draw(st.integers(1, 5)), draw(st.integers(1, 60)), draw(st.integers(1, 6))
    return np.random.default_rng(draw(st.integers(0, 10**6))).integers(3, 3 + codes, (items, depth))


def prefixes(identifiers: np.ndarray, depth: int) -> list[tuple[int, ...]]:
    return sorted({tuple(row[:depth]) for row in identifiers.tolist()})


def path_of(trie: ItemTrie, node: int) -> tuple[int, ...]:
    """The tokens from the root down to a node, found by searching for its parents."""
    first_child, tokens = trie.child_offsets.numpy(), trie.token.numpy()
    path: list[int] = []
    while node:
        path.append(int(tokens[node]))
        node = int(np.searchsorted(first_child, node, side="right")) - 1
    return tuple(reversed(path))


@given(identifier_tables())
def test_nodes_are_the_distinct_prefixes_in_order(identifiers: np.ndarray) -> None:
    trie = ItemTrie.build(identifiers)
    assert trie.depth == identifiers.shape[1]
    for depth in range(trie.depth + 1):
        nodes = range(trie.level_starts[depth], trie.level_starts[depth + 1])
        assert [path_of(trie, node) for node in nodes] == prefixes(identifiers, depth)
        assert trie.level_size(depth) == len(nodes)


@given(identifier_tables())
def test_items_below_a_node_are_those_with_its_prefix(identifiers: np.ndarray) -> None:
    trie = ItemTrie.build(identifiers)
    for node in range(trie.nodes):
        path = path_of(trie, node)
        assert sorted(trie.items_of(node)) == [i for i, row in enumerate(identifiers.tolist()) if tuple(row[: len(path)]) == path]
    for depth in range(trie.depth + 1):
        nodes = np.arange(*trie.level_starts[depth : depth + 2])
        starts, ends = trie.item_ranges(nodes)
        assert [trie.items[start:end].tolist() for start, end in zip(starts, ends, strict=True)] == [
            trie.items_of(node).tolist() for node in nodes
        ]
    assert [len(bounds) for bounds in trie.item_ranges(nodes[:0])] == [0, 0]


@given(identifier_tables())
def test_max_children_bounds_every_level(identifiers: np.ndarray) -> None:
    trie = ItemTrie.build(identifiers)
    fanout = np.diff(trie.child_offsets.numpy())
    for depth in range(trie.depth):
        assert trie.max_children[depth] == fanout[trie.level_starts[depth] : trie.level_starts[depth + 1]].max()
    assert not fanout[trie.level_starts[trie.depth] :].any()


@given(identifier_tables(), st.data())
def test_excluded_nodes_have_no_eligible_item_below(identifiers: np.ndarray, data: st.DataObject) -> None:
    trie = ItemTrie.build(identifiers)
    excluded = data.draw(st.lists(st.integers(0, len(identifiers) - 1)))
    nodes = trie.excluded_nodes(excluded)
    assert nodes.tolist() == [node for node in range(1, trie.nodes) if set(trie.items_of(node).tolist()) <= set(excluded)]


def test_beauty_has_the_published_shape(beauty) -> None:
    codes = {token: number for number, token in enumerate(beauty.tokens)}
    trie = ItemTrie.build(beauty.token_ids(codes))
    assert [trie.level_size(depth) for depth in range(1, 5)] == [91, 6539, 11172, 12023]


@pytest.mark.parametrize("depth", [1, 3])
def test_a_single_item_is_a_path(depth: int) -> None:
    trie = ItemTrie.build(np.full((1, depth), 7))
    assert trie.nodes == depth + 1
    assert trie.excluded_nodes([0]).tolist() == list(range(1, depth + 1))
    assert trie.excluded_nodes([]).tolist() == []


@pytest.mark.parametrize(("depth", "codes"), [(8, 65_536), (1, 65_536), (8, 2), (5, 9000)])
def test_as_long_and_as_wide_as_identifiers_may_be(depth: int, codes: int) -> None:
    """Paths that need more than one word to sort by, and levels as wide as they come."""
    rng = np.random.default_rng(depth)
    identifiers = np.concatenate([rng.integers(codes, size=(3000, depth)), rng.integers(2, size=(500, depth)), [[codes - 1] * depth]])
    trie = ItemTrie.build(identifiers)
    order = np.lexsort(identifiers.T[::-1])
    assert trie.items.tolist() == order.tolist()
    np.testing.assert_array_equal(trie.token.numpy()[trie.paths(trie.leaf_of_item)], identifiers)
    assert [trie.level_size(level) for level in range(depth + 1)] == [len(prefixes(identifiers, level)) for level in range(depth + 1)]


def test_a_level_of_65536_codes() -> None:
    trie = ItemTrie.build(np.stack([np.zeros(65_536, np.int64), np.arange(65_536)], axis=1))
    assert trie.max_children == (1, 65_536)
    assert trie.items_of(1).tolist() == list(range(65_536))
