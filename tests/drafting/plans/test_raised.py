"""Raised proposals, against sorting them one by one."""

import numpy as np
import pytest
import torch

from drafting.beam.expand import Selection
from drafting.plans.raised import Raised

TRIE_NODES = 40
INNER = 30


def selection_of(rng: np.random.Generator, requests: int, k: int, sampled: bool) -> Selection:
    """Of each request other inner nodes, some with equal scores; the last ones are none."""
    nodes = np.stack([rng.permutation(INNER)[:k] for _ in range(requests)])
    scores = -np.sort(rng.integers(0, 6, (requests, k)).astype(np.float32) / 2, axis=1)
    for row, real in enumerate(rng.integers(1, k + 1, requests).tolist()):
        nodes[row, real:], scores[row, real:] = -1, -np.inf
    other = torch.from_numpy(rng.random((requests, k), np.float32))
    ranking = torch.from_numpy(scores)
    parents = torch.from_numpy(rng.integers(0, 99, (requests, k)))
    return Selection(parents, torch.from_numpy(nodes), *((other, ranking) if sampled else (ranking, None)))


@pytest.mark.parametrize("seed", range(20))
def test_proposals_come_in_the_order_of_their_raised_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    requests, k = int(rng.integers(1, 5)), int(rng.integers(1, 12))
    before = selection_of(rng, requests, k, sampled=bool(seed % 2))
    raised = [np.sort(rng.permutation(INNER)[: rng.integers(0, 10)]) for _ in range(requests)]
    bonuses = rng.choice([0.0, 0.5, 1.5], requests).astype(np.float32)
    after, ranking = Raised(raised, bonuses).rank(before, TRIE_NODES)
    for row in range(requests):
        nodes, scores = before.nodes[row].tolist(), before.ranking[row].tolist()
        wanted = [score + float(bonuses[row]) * (node in raised[row]) for node, score in zip(nodes, scores, strict=True)]
        order = sorted(range(k), key=lambda index: -wanted[index])
        assert ranking[row].tolist() == [wanted[index] for index in order]
        tables = [(before.nodes, after.nodes), (before.parent_slots, after.parent_slots), (before.cum_log_probs, after.cum_log_probs)]
        if before.scores is not None:
            assert after.scores is not None
            tables.append((before.scores, after.scores))
        for old, new in tables:
            assert new[row].tolist() == [old[row].tolist()[index] for index in order]


def test_where_nothing_is_raised_nothing_moves() -> None:
    before = selection_of(np.random.default_rng(0), 2, 5, sampled=False)
    after, ranking = Raised([np.empty(0, np.int64)] * 2, np.ones(2, np.float32)).rank(before, TRIE_NODES)
    assert after is before
    assert ranking is before.ranking
