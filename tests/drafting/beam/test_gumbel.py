"""Shared-noise sampling against Plackett-Luce probabilities."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from drafting.beam.expand import Frontier, expand_beam
from drafting.beam.gumbel import Stream, gumbel_noise, perturb, uniform_noise
from drafting.beam.ranking import BatchRules, rank, renormalised
from drafting.beam.rule import SearchRule, Verification
from drafting.trie.item_trie import ItemTrie


def test_noise_is_standard_gumbel_and_a_function_of_seed_and_node() -> None:
    nodes = torch.arange(20_000)[None]
    noise = gumbel_noise(torch.tensor([7]), nodes)
    assert kstest(noise[0].numpy(), "gumbel_r").pvalue > 0.001
    assert torch.equal(noise[:, 5000:], gumbel_noise(torch.tensor([7]), nodes[:, 5000:]))
    other = gumbel_noise(torch.tensor([8]), nodes)
    assert abs(np.corrcoef(noise[0], other[0])[0, 1]) < 0.03


def test_uniform_noise_is_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all bits as well, whose number would be rounded to 1 and be infinite as Gumbel noise."""
    monkeypatch.setattr("drafting.beam.gumbel._mix", lambda state: torch.full_like(state, -1))
    nodes = torch.arange(3)[None]
    assert (uniform_noise(torch.tensor([7]), nodes, Stream.SHARED) < 1).all()
    assert gumbel_noise(torch.tensor([7]), nodes).isfinite().all()


def test_sampled_rows_are_the_same_to_the_bit_however_wide_those_beside_them_are() -> None:
    generator = torch.Generator().manual_seed(0)
    for width in (2, 91, 700):
        log_probs = 3 * torch.randn(40, width, generator=generator)
        log_probs[torch.rand(40, width, generator=generator) < 0.3] = float("-inf")
        temperatures = torch.rand(40, generator=generator) + 0.5
        alone = renormalised(log_probs, temperatures)
        for wider in (1, 7, 64, 1000, 5001):
            padded = torch.nn.functional.pad(log_probs, (0, wider), value=float("-inf"))
            assert torch.equal(renormalised(padded, temperatures)[:, :width], alone)


def test_streams_and_seeds_are_independent() -> None:
    nodes = torch.arange(20_000)[None]
    rows = [gumbel_noise(torch.tensor([seed]), nodes, stream)[0].numpy() for seed in (1, 2) for stream in Stream]
    correlations = np.corrcoef(rows) - np.eye(len(rows))
    assert abs(correlations).max() < 0.04


def test_the_best_continuation_inherits_its_parents_score() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, float("-inf")], [-0.5, -0.7, -3.0]])
    limits = torch.tensor([0.3, -2.0])
    score = perturb(log_probs, limits, gumbel_noise(torch.tensor([1, 1]), torch.arange(6).view(2, 3)))
    torch.testing.assert_close(score.amax(1), limits.double())
    assert score[0, 2] == float("-inf")


def test_beam_search_over_perturbed_scores_samples_without_replacement() -> None:
    """50,000 draws of two of four items of a two-level trie: every ordered pair as often as Plackett-Luce says."""
    draws, k = 50_000, 2
    trie = ItemTrie.build(np.array([[0, 2], [0, 3], [1, 2], [1, 3]]))
    first, second = torch.tensor([0.7, 0.3]).log(), torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log()
    probabilities = (first[:, None] + second).flatten().double().softmax(0).tolist()
    cpu, nothing = torch.device("cpu"), torch.zeros(draws)
    rules = BatchRules.of([SearchRule(Verification.GUMBEL, seed) for seed in range(draws)], cpu)
    roots = Frontier(torch.arange(draws), torch.zeros(draws, dtype=torch.int64), (1,) * draws, nothing, nothing)
    beams = expand_beam(rank(roots, torch.ones(draws, dtype=torch.int64), first.expand(draws, 2), rules, Stream.DRAFT), 2)
    parents = beams.nodes.flatten()
    frontier = Frontier(torch.arange(2 * draws), parents, (2,) * draws, beams.cum_log_probs.flatten(), beams.ranking.flatten())
    drawn = expand_beam(rank(frontier, trie.child_offsets[parents], second[parents - 1], rules, Stream.DRAFT), k).nodes - 3
    pairs = list(itertools.permutations(range(4), k))
    observed = [int(((drawn[:, 0] == a) & (drawn[:, 1] == b)).sum()) for a, b in pairs]
    expected = [draws * probabilities[a] * probabilities[b] / (1 - probabilities[a]) for a, b in pairs]
    assert chisquare(observed, expected).pvalue > 0.001
    included = [int((drawn == item).any(1).sum()) for item in range(4)]
    likely = [sum(count for pair, count in zip(pairs, expected, strict=True) if item in pair) for item in range(4)]
    assert chisquare(included, likely).pvalue > 0.001
