"""What a search ranks prefixes by: their log-probability, or their log-probability with noise (see `drafting.beam.rule`).

Invariant: draft and target rank by the same rule with the same function, so a draft that agrees with the target proposes what the target
will choose; requests of different rules share a batch, row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drafting.beam.expand import NEGATIVE_INFINITY, Candidates, Continuations, Frontier
from drafting.beam.gumbel import Stream, gumbel_noise, perturb
from drafting.beam.rule import SearchRule, Verification
from drafting.beam.tree import TokenTree
from drafting.device import on_device


@dataclass(frozen=True)
class BatchRules:
    """The rules of the requests of a batch in which at least one samples.

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


@dataclass(frozen=True)
class Ratings:
    """What some prefixes are worth.

    Attributes:
        log_probs: `[prefixes]` float32, their cumulative log-probabilities.
        scores: `[prefixes]` float32, what a search that samples ranks them by; anything where none does.
    """

    log_probs: Tensor
    scores: Tensor

    @classmethod
    def of(cls, tree: TokenTree, slots: Tensor, rules: BatchRules | None) -> "Ratings":
        """What stands in the tree."""
        log_probs = tree.log_prob.index_select(0, slots)
        return cls(log_probs, log_probs if rules is None else tree.score.index_select(0, slots))


def rank(continuations: Continuations, ratings: Ratings, frontier: Frontier, rules: BatchRules | None, stream: Stream) -> Candidates:
    """Ranks the continuations of a frontier.

    Args:
        ratings: of the frontier's prefixes.
        stream: the noise by which relaxed searches draw; the draft's draw and the target's are independent.
    """
    log_probs = ratings.log_probs[:, None] + continuations.log_probs
    if rules is None:
        return Candidates(continuations.first, log_probs, log_probs)
    gumbel, relaxed = rules.gumbel[frontier.requests], rules.relaxed[frontier.requests]
    seeds, temperatures = rules.seeds[frontier.requests], rules.temperatures[frontier.requests]
    sampled = ratings.log_probs[:, None] + renormalised(continuations.log_probs, temperatures)
    nodes = continuations.nodes
    shared = perturb(sampled, ratings.scores, gumbel_noise(seeds, nodes, Stream.SHARED)).float()
    drawn = (sampled + gumbel_noise(seeds, nodes, stream)).float()
    scores = torch.where(gumbel[:, None], shared, torch.where(relaxed[:, None], drawn, log_probs))
    return Candidates(continuations.first, scores, torch.where((gumbel | relaxed)[:, None], sampled, log_probs))


def renormalised(log_probs: Tensor, temperatures: Tensor) -> Tensor:
    """Log-probabilities at a temperature over the valid continuations alone.

    Args:
        log_probs: `[rows, width]`, -inf where there is no continuation; a row may have none at all.
        temperatures: `[rows]`.
    """
    warped = log_probs / temperatures[:, None]
    total = warped.logsumexp(1, keepdim=True)
    return (warped - total).masked_fill_(log_probs == NEGATIVE_INFINITY, NEGATIVE_INFINITY)
