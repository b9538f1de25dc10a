"""Masks and excluded nodes against sets of items, node by node."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from drafting.trie.eligibility import BatchEligibility, Eligibility
from drafting.trie.item_set import ItemSet
from drafting.trie.item_trie import ItemTrie
from drafting.trie.node_mask import MaskBank


def random_trie(rng: np.random.Generator) -> ItemTrie:
    depth, items, codes = rng.integers(1, 6), rng.integers(1, 80), rng.integers(1, 12)
    return ItemTrie.build(rng.integers(3, 3 + codes, (items, depth)))


def bits_of(bank: MaskBank, row: int, nodes: int) -> np.ndarray:
    return np.unpackbits(bank.bits.rows[row].numpy(), count=nodes, bitorder="little").astype(bool)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.02, 0.3, 1.0]))
def test_a_node_is_allowed_while_an_eligible_item_is_below(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    trie = random_trie(rng)
    chosen = rng.random(len(trie.items)) < share
    items = ItemSet.of(chosen)
    bank = MaskBank(trie, torch.device("cpu"))
    mask = bank.acquire(items)
    allowed = [bool(chosen[trie.items_of(node)].any()) for node in range(trie.nodes)]
    assert bits_of(bank, mask.row, trie.nodes).tolist() == allowed
    assert torch.equal(bank._wide(items), bank._narrow(items))
    nodes = np.arange(trie.nodes + 1)
    assert mask.rank(nodes).tolist() == [sum(allowed[:node]) for node in nodes]


@given(st.integers(0, 10**6))
def test_with_a_filter_a_node_is_excluded_when_all_its_eligible_items_are_excluded(seed: int) -> None:
    rng = np.random.default_rng(seed)
    trie = random_trie(rng)
    chosen = rng.random(len(trie.items)) < rng.choice([0.1, 0.5, 0.9])
    excluded = rng.permutation(len(trie.items))[: rng.integers(len(trie.items) + 1)]
    mask = MaskBank(trie, torch.device("cpu")).acquire(ItemSet.of(chosen))
    nodes = set(trie.excluded_nodes(excluded, mask).tolist())
    left = chosen.copy()
    left[excluded] = False
    for node in range(1, trie.nodes):
        below = trie.items_of(node)
        assert (node in nodes) == (chosen[below].any() and not left[below].any())


@given(st.integers(0, 10**6))
def test_requests_with_and_without_filters_and_exclusions_share_a_batch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    trie = random_trie(rng)
    bank = MaskBank(trie, torch.device("cpu"))
    each, left = [], []
    for _ in range(rng.integers(1, 5)):
        chosen = rng.random(len(trie.items)) < rng.choice([0.2, 0.7])
        excluded = rng.permutation(len(trie.items))[: rng.integers(len(trie.items) // 2 + 1)] if rng.random() < 0.7 else []
        mask = bank.acquire(ItemSet.of(chosen)) if rng.random() < 0.6 else None
        each.append(Eligibility(trie.excluded_nodes(excluded, mask), torch.device("cpu"), mask))
        left.append(chosen.copy() if mask else np.ones(len(trie.items), bool))
        left[-1][excluded] = False
    depth = int(rng.integers(trie.depth))
    level = np.arange(trie.level_starts[depth], trie.level_starts[depth + 1])
    rows = [rng.permutation(level)[: rng.integers(1, 6)] for _ in each]
    requests = np.repeat(np.arange(len(each)), [len(row) for row in rows])
    parents = torch.from_numpy(np.concatenate(rows))
    eligible = BatchEligibility.of(each, trie.nodes, [len(row) for row in rows])
    first, end = trie.children(parents)
    nodes = first[:, None] + torch.arange(trie.max_children[depth])
    exists = nodes < end[:, None]
    if eligible is not None:
        exists &= eligible.allowed(first, nodes.shape[1])
    for row, (parent, request) in enumerate(zip(parents.tolist(), requests.tolist(), strict=True)):
        below = range(int(trie.child_offsets[parent]), int(trie.child_offsets[parent + 1]))
        expected = [node for node in below if left[request][trie.items_of(node)].any()]
        assert nodes[row][exists[row]].tolist() == expected
        assert np.array(below)[each[request].allowed(np.array(below))].tolist() == expected


def test_masks_in_use_stay_and_the_least_recently_used_go() -> None:
    trie = random_trie(np.random.default_rng(3))
    bank = MaskBank(trie, torch.device("cpu"), most_bytes=1)
    sets = [ItemSet.of_items([number % len(trie.items)], len(trie.items)) for number in range(20)]
    held = bank.acquire(sets[0])
    before = bits_of(bank, held.row, trie.nodes)
    for items in sets[1:]:
        bank.release(bank.acquire(items))
    assert len(bank.bits.rows) == 8
    assert bank.acquire(sets[0]) is held
    assert (bits_of(bank, held.row, trie.nodes) == before).all()
    holding = [bank.acquire(items) for items in sets]
    assert len({mask.row for mask in holding}) == 20
    for mask, items in zip(holding, sets, strict=True):
        (item,) = np.flatnonzero(items.members())
        path = trie.paths(trie.leaf_of_item[[item]])[0]
        assert np.flatnonzero(bits_of(bank, mask.row, trie.nodes)).tolist() == [0, *path]
