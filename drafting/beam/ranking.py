"""Scores by which continuations are ranked: cumulative log-probability, with Gumbel noise for sampling (see `drafting.beam.rule`).

Invariant: draft and target rank by the same rule with the same function, so a draft that agrees with the target proposes what the target
will select; requests of different rules share a batch, row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drafting.beam.continuations import child_nodes
from drafting.beam.expand import Frontier, ScoredContinuations
from drafting.beam.gumbel import Stream, gumbel_noise, perturb
from drafting.beam.rule import SearchRule, Verification
from drafting.device import NEGATIVE_INFINITY, on_device


@dataclass(frozen=True)
class BatchRules:
    """The rules of a batch in which at least one request samples.

    Attributes:
        gumbel, relaxed: `[requests]` bool, neither for a strict request.
        seeds: `[requests]` int64.
        temperatures: `[requests]` float32.
    """

    gumbel: Tensor
    relaxed: Tensor
    seeds: Tensor
    temperatures: Tensor

    @classmethod
    def of(cls, rules: Sequence[SearchRule], device: torch.device) -> "BatchRules | None":
        """The rules of a batch; None if all are strict, which is then the cheaper computation."""
        if all(rule.verification is Verification.STRICT for rule in rules):
            return None
        return cls(
            gumbel=on_device(np.array([rule.verification is Verification.GUMBEL for rule in rules]), device),
            relaxed=on_device(np.array([rule.verification is Verification.RELAXED for rule in rules]), device),
            seeds=on_device(np.array([rule.seed for rule in rules], np.int64), device),
            temperatures=on_device(np.array([rule.temperature for rule in rules], np.float32), device),
        )


def rank(frontier: Frontier, first_child: Tensor, log_probs: Tensor, rules: BatchRules | None, stream: Stream) -> ScoredContinuations:
    """Score the continuations of a frontier.

    Args:
        first_child: `[P]` int64 trie nodes.
        log_probs: `[P, width]` of the children given the prefix.
        rules: None if all requests are strict.
        stream: the noise by which relaxed searches draw; the draft's draw and the target's are independent.
    """
    cumulative = frontier.cum_log_probs[:, None] + log_probs
    if rules is None or frontier.scores is None:
        return ScoredContinuations(frontier, first_child, cumulative)
    gumbel, relaxed = rules.gumbel[frontier.requests], rules.relaxed[frontier.requests]
    seeds, temperatures = rules.seeds[frontier.requests], rules.temperatures[frontier.requests]
    sampled = frontier.cum_log_probs[:, None] + renormalised(log_probs, temperatures)
    nodes = child_nodes(first_child, log_probs.shape[1])
    shared = perturb(sampled, frontier.scores, gumbel_noise(seeds, nodes, Stream.SHARED)).float()
    drawn = (sampled + gumbel_noise(seeds, nodes, stream)).float()
    scores = torch.where(gumbel[:, None], shared, torch.where(relaxed[:, None], drawn, cumulative))
    return ScoredContinuations(frontier, first_child, torch.where((gumbel | relaxed)[:, None], sampled, cumulative), scores)


def renormalised(log_probs: Tensor, temperatures: Tensor) -> Tensor:
    """Log-probabilities at a temperature over the valid continuations alone.

    Args:
        log_probs: `[rows, width]`, -inf where there is no continuation; a row may have none at all.
        temperatures: `[rows]`.
    """
    warped = log_probs / temperatures[:, None]
    # Rows are as wide as the widest beside them, and padding changes the order of a sum; to float32 a sum in float64 is the same in any.
    total = warped.double().logsumexp(1, keepdim=True).float()
    return (warped - total).masked_fill_(log_probs == NEGATIVE_INFINITY, NEGATIVE_INFINITY)
