"""Shared-noise sampling against Plackett-Luce probabilities."""

import itertools

import numpy as np
import torch
from scipy.stats import chisquare, kstest

from verification.gumbel import gumbel_noise, perturb


def test_noise_is_standard_gumbel_and_a_function_of_seed_and_node() -> None:
    nodes = torch.arange(20_000)[None]
    noise = gumbel_noise(torch.tensor([7]), nodes)
    assert kstest(noise[0].numpy(), "gumbel_r").pvalue > 0.001
    assert torch.equal(noise[:, 5000:], gumbel_noise(torch.tensor([7]), nodes[:, 5000:]))
    other = gumbel_noise(torch.tensor([8]), nodes)
    assert abs(np.corrcoef(noise[0], other[0])[0, 1]) < 0.03


def test_the_best_continuation_inherits_its_parents_score() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, float("-inf")], [-0.5, -0.7, -3.0]])
    parents, limits = torch.tensor([-1.0, 0.0]), torch.tensor([0.3, -2.0])
    total, score = perturb(log_probs, parents, limits, gumbel_noise(torch.tensor([1, 1]), torch.arange(6).view(2, 3)))
    torch.testing.assert_close(score.amax(1), limits.double())
    torch.testing.assert_close(total.logsumexp(1), parents.double())
    assert score[0, 2] == float("-inf")


def test_beam_search_over_perturbed_scores_samples_without_replacement() -> None:
    """50,000 draws of two of four items of a two-level trie: every ordered pair as often as Plackett-Luce says."""
    draws, k = 50_000, 2
    first = torch.tensor([0.7, 0.3]).log()
    second = torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log()
    seeds = torch.arange(draws)
    root = torch.zeros(draws)
    total, score = perturb(first.expand(draws, 2), root, root, gumbel_noise(seeds, torch.tensor([[1, 2]]).expand(draws, 2)))
    leaves = []
    for branch in range(2):
        nodes = torch.tensor([[3 + 2 * branch, 4 + 2 * branch]]).expand(draws, 2)
        leaves.append(perturb(second[branch].expand(draws, 2), total[:, branch], score[:, branch], gumbel_noise(seeds, nodes))[1])
    drawn = torch.cat(leaves, 1).topk(k, 1).indices
    probabilities = torch.cat([first[0] + second[0], first[1] + second[1]]).double().softmax(0).tolist()
    pairs = list(itertools.permutations(range(4), k))
    observed = [int(((drawn[:, 0] == a) & (drawn[:, 1] == b)).sum()) for a, b in pairs]
    expected = [draws * probabilities[a] * probabilities[b] / (1 - probabilities[a]) for a, b in pairs]
    assert chisquare(observed, expected).pvalue > 0.001
