"""What a search ranks prefixes by: their log-probability, or their log-probability with noise.

Three rules, one per way of verifying a draft. *Strict* ranks by the cumulative log-probability over the full vocabulary, as plain beam
search does. The two rules that sample draw from the model restricted to the catalog: token probabilities at a temperature, renormalised
over the valid continuations. *Gumbel* ranks by noise-perturbed log-probabilities, and *relaxed* draws each level anew.

Invariant: draft and target rank by the same rule with the same function, so a draft that agrees with the target proposes what the target
will choose; requests of different rules share a batch, row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from drafting.expand import NEGATIVE_INFINITY, Candidates, Continuations, Frontier
from drafting.gumbel import Stream, gumbel_noise, perturb
from drafting.tree import TokenTree


MOST_SEEDS = 2**63


class Verification(StrEnum):
    """How the target judges a draft, and with that what a list is.

    Attributes:
        STRICT: exactly the list of plain beam search.
        GUMBEL: a sample of k identifiers without replacement, exact whatever the draft proposes.
        RELAXED: the paper's sampling acceptance (algorithm 2); not distribution-preserving.
    """

    STRICT = "strict"
    GUMBEL = "gumbel"
    RELAXED = "relaxed"


@dataclass(frozen=True)
class SearchRule:
    """How one request is ranked.

    Attributes:
        seed: of the noise; the same seed gives the same list. Strict searches ignore it.
        temperature: sharpens (below 1) or flattens (above 1) the distribution that is sampled. Strict searches ignore it.
    """

    verification: Verification = Verification.STRICT
    seed: int = 0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < MOST_SEEDS:
            raise ValueError(f"A seed is a whole number from 0 to 2^63 - 1, got {self.seed}.")
        if not 0.01 <= self.temperature <= 100:
            raise ValueError(f"A temperature lies between 0.01 and 100, got {self.temperature}.")


STRICT = SearchRule()


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
            gumbel=torch.tensor([rule.verification is Verification.GUMBEL for rule in rules], device=device),
            relaxed=torch.tensor([rule.verification is Verification.RELAXED for rule in rules], device=device),
            seeds=torch.tensor([rule.seed for rule in rules], device=device),
            temperatures=torch.tensor([rule.temperature for rule in rules], device=device),
        )


def rank(continuations: Continuations, tree: TokenTree, frontier: Frontier, rules: BatchRules | None, stream: Stream) -> Candidates:
    """Ranks the continuations of a frontier, whose own scores are in the tree.

    Args:
        stream: the noise by which relaxed searches draw; the draft's draw and the target's are independent.
    """
    log_probs = tree.log_prob[frontier.slots][:, None] + continuations.log_probs
    if rules is None:
        return Candidates(continuations.nodes, log_probs, log_probs)
    gumbel, relaxed = rules.gumbel[frontier.requests], rules.relaxed[frontier.requests]
    seeds, temperatures = rules.seeds[frontier.requests], rules.temperatures[frontier.requests]
    sampled = tree.log_prob[frontier.slots][:, None] + renormalised(continuations.log_probs, temperatures)
    shared = perturb(sampled, tree.score[frontier.slots], gumbel_noise(seeds, continuations.nodes, Stream.SHARED)).float()
    drawn = (sampled + gumbel_noise(seeds, continuations.nodes, stream)).float()
    scores = torch.where(gumbel[:, None], shared, torch.where(relaxed[:, None], drawn, log_probs))
    return Candidates(continuations.nodes, scores, torch.where((gumbel | relaxed)[:, None], sampled, log_probs))


def renormalised(log_probs: Tensor, temperatures: Tensor) -> Tensor:
    """Log-probabilities at a temperature over the valid continuations alone.

    Args:
        log_probs: `[rows, width]`, -inf where there is no continuation; a row may have none at all.
        temperatures: `[rows]`.
    """
    warped = log_probs / temperatures[:, None]
    total = warped.logsumexp(1, keepdim=True)
    return (warped - total).masked_fill_(log_probs == NEGATIVE_INFINITY, NEGATIVE_INFINITY)
