"""Sampled lists: exact and repeatable with shared noise, well-formed with relaxed verification."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from benchmarks.replay.prefixes import PrefixScorer
from drafting.beam.rule import SearchRule, Verification
from tests.speculation import SWEPT_DEPTHS, Speculation, run
from verification.request import BeamRequest
from verification.result import BeamResult

PLANS = ("none", "trie", "beam:12", "beam:40", "beam:20+children", "auto")


def lists(results: dict[str, BeamResult]) -> dict[str, list[int]]:
    return {name: [item.item for item in result.items] for name, result in results.items()}


@pytest.mark.parametrize("depth", SWEPT_DEPTHS)
def test_the_same_seed_draws_the_same_list_whatever_the_batch_or_plan(speculation: Speculation, depth: int) -> None:
    rng = np.random.default_rng(depth)
    requests = speculation.requests(30, rng, SearchRule(Verification.GUMBEL, seed=11, temperature=0.7))
    plain = run(speculation.engine(depth), requests, rng)
    for name in PLANS[1:]:
        results = run(speculation.engine(depth, name), requests, rng)
        assert lists(results) == lists(plain)
        if depth > 1 and name in ("trie", "beam:40"):
            assert sum(result.usage.accepted_steps for result in results.values()) > 0
    others = [
        BeamRequest(r.request_id, r.prompt, r.k, r.beam_width, r.excluded_items, SearchRule(Verification.GUMBEL, 12)) for r in requests
    ]
    assert lists(run(speculation.engine(depth), others, rng)) != lists(plain)


def test_shared_noise_draws_what_the_model_says(speculation: Speculation) -> None:
    """4,000 draws of the first of three items, under a draft, against the model's own probabilities."""
    draws, depth = 4000, 2
    trie = speculation.tries[depth]
    prompt = np.concatenate([[1], speculation.identifiers[3]])
    scorer = PrefixScorer(speculation.target, trie)
    first = torch.from_numpy(scorer.whole_trie(prompt))[1:].log_softmax(0)
    probabilities = _leaf_probabilities(speculation, prompt, first)
    engine = speculation.engine(depth, "beam:40")
    requests = [BeamRequest(str(seed), prompt, 3, 40, rule=SearchRule(Verification.GUMBEL, seed)) for seed in range(draws)]
    drawn: Counter[int] = Counter()
    for start in range(0, draws, 100):
        for request in requests[start : start + 100]:
            engine.add(request)
        while engine.running:
            for result in engine.step().finished:
                drawn[int(trie.leaf_of_item[result.items[0].item])] += 1
    expected = draws * probabilities / probabilities.sum()
    common = expected > 8
    observed = np.array([drawn[leaf] for leaf in range(len(expected))])
    pooled = [*observed[common], observed[~common].sum()], [*expected[common], expected[~common].sum()]
    assert chisquare(*pooled).pvalue > 0.001


def _leaf_probabilities(speculation: Speculation, prompt: np.ndarray, first: torch.Tensor) -> np.ndarray:
    """Token by token under the trie, renormalised at each level."""
    trie, host = speculation.tries[2], speculation.target
    scorer = PrefixScorer(host, trie)
    sequence, _ = scorer._start(prompt)
    nodes = torch.arange(1, 1 + trie.level_size(1))
    added = scorer._add(sequence, np.full(len(nodes), sequence.root), nodes, 1)
    second = scorer._score(sequence, added)
    leaves = np.zeros(trie.level_size(2))
    for row, node in enumerate(nodes.tolist()):
        below = torch.arange(int(trie.child_offsets[node]), int(trie.child_offsets[node + 1]))
        shares = second[row, trie.token[below]].softmax(0)
        leaves[below.numpy() - trie.level_starts[2]] = (first[row].exp() * shares).numpy()
    return leaves


@pytest.mark.parametrize("depth", SWEPT_DEPTHS)
@pytest.mark.parametrize("name", PLANS)
def test_relaxed_searches_end_with_full_lists(speculation: Speculation, depth: int, name: str) -> None:
    """On small and exhausted levels, beside strict and shared-noise requests, under every plan: k items whenever k exist, best first."""
    rng = np.random.default_rng(depth)
    rules = [
        SearchRule(Verification.RELAXED, 3),
        SearchRule(),
        SearchRule(Verification.GUMBEL, 3),
        SearchRule(Verification.RELAXED, 4, 2.0),
    ]
    requests = [
        BeamRequest(r.request_id, r.prompt, r.k, r.beam_width, r.excluded_items, rules[number % 4])
        for number, r in enumerate(speculation.requests(40, rng))
    ]
    plain = run(speculation.engine(depth), requests, rng)
    results = run(speculation.engine(depth, name), requests, rng)
    trie = speculation.tries[depth]
    for request in requests:
        result = results[request.request_id]
        eligible = set(trie.leaf_of_item.tolist())
        eligible -= set((trie.excluded_nodes(request.excluded_items) - trie.level_starts[depth]).tolist())
        leaves = list(dict.fromkeys(int(trie.leaf_of_item[item.item]) for item in result.items))
        assert len(leaves) == min(request.k, len(eligible))
        assert set(leaves) <= eligible
        if request.rule.verification is Verification.RELAXED:
            scores = [item.score for item in result.items]
            assert scores == sorted(scores, reverse=True)
        else:
            assert lists({"": result}) == lists({"": plain[request.request_id]})
    again = run(speculation.engine(depth, name), requests, np.random.default_rng(99))
    if name != "auto":
        assert lists(again) == lists(results)


def test_relaxed_verification_saves_forwards(speculation: Speculation) -> None:
    rng = np.random.default_rng(0)
    requests = [
        BeamRequest(r.request_id, r.prompt, 5, 5, rule=SearchRule(Verification.RELAXED, n))
        for n, r in enumerate(speculation.requests(40, rng))
    ]
    results = run(speculation.engine(4, "beam:40"), requests, rng)
    assert np.mean([result.usage.accepted_steps for result in results.values()]) > 1
