"""Scores by which continuations are ranked: cumulative log-probability, with Gumbel noise for sampling (see `drafting.beam.rule`).

Invariant: draft and target rank by the same rule with the same function, so a draft that agrees with the target proposes what the target
will select; requests of different rules share a batch, row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drafting.beam.expand import Candidates, Frontier
from drafting.beam.gumbel import Stream, gumbel_noise, perturb
from drafting.beam.rule import Normalisation, SearchRule, Verification
from drafting.device import NEGATIVE_INFINITY, arange, on_device
from drafting.trie.eligibility import BatchEligibility
from drafting.trie.item_trie import ItemTrie

# As the bits of a float32, -2^23 is minus infinity, and 2^23 more is 0.
_INFINITY_BITS = torch.tensor(-(1 << 23), dtype=torch.int32)
# In place of minus infinity, of which a prefix without children would make NaN: its exponential is 0 beside that of any logit.
_PADDING = -1e38


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


def continuation_log_probs(
    trie: ItemTrie,
    nodes: Tensor,
    logits: Tensor,
    width: int,
    eligible: BatchEligibility | None,
    normalise: Normalisation = Normalisation.VOCABULARY,
) -> Tensor:
    """Log-probabilities of the children of trie nodes (constrained decoding), `[rows, width]` float32; -inf where there is none.

    They are normalised over the whole vocabulary, as in the paper (section 3), or over all children of each node, eligible or not: a filter
    changes no score. Where the model has gone wrong, so that a logit that is read is not finite or the row has none to normalise by, all of
    the row is NaN: its first column tells, whatever constrained decoding masks.

    Args:
        nodes: `[rows]` int64.
        logits: `[rows, vocabulary]` of the token after each node, any float type.
        width: at least the number of children of every node, and no more than the most children of any in the trie.
        eligible: children that may be entered; None for all.
    """
    first, end = trie.children(nodes)
    # Children are neighbours: whole windows of tokens are read, where looking up node by node would take three times as long.
    tokens = trie.token.unfold(0, width, 1).index_select(0, first)
    padding = trie.padding_mask(first, end, width)
    if normalise is Normalisation.CHILDREN:
        log_probs = logits.gather(1, tokens).float()
        # Zero times a finite number is zero, times any other NaN. Before the masks: their -inf is ours.
        broken = log_probs.amin(1, keepdim=True).mul_(0)
        log_probs = log_probs.add_(padding.clamp(min=_PADDING)).log_softmax(1)
    else:
        log_probs = logits.float().log_softmax(1).gather(1, tokens)
        broken = log_probs.amin(1, keepdim=True).mul_(0)
    # Adding 0 or -inf takes no branch, where filling by a mask mispredicts one at every other element.
    log_probs.add_(broken).add_(padding)
    return log_probs if eligible is None else log_probs.add_(_eligibility_mask(eligible, first, width))


def child_mask(trie: ItemTrie, nodes: Tensor, width: int, eligible: BatchEligibility | None) -> Tensor:
    """`[rows, width]` float32, 0 for each child of trie nodes that may be entered, -inf elsewhere; see `continuation_log_probs`."""
    first, end = trie.children(nodes)
    mask = trie.padding_mask(first, end, width)
    return mask if eligible is None else mask.add_(_eligibility_mask(eligible, first, width))


def _eligibility_mask(eligible: BatchEligibility, first: Tensor, width: int) -> Tensor:
    return torch.add(_INFINITY_BITS, eligible.allowed(first, width), alpha=1 << 23).view(torch.float32)


def child_nodes(first_child: Tensor, width: int) -> Tensor:
    """`[rows, width]` int64, the trie nodes from each row's first child on."""
    return first_child[:, None] + arange(width, first_child.device)


def rank(frontier: Frontier, first_child: Tensor, log_probs: Tensor, rules: BatchRules | None, stream: Stream) -> Candidates:
    """Score the continuations of a frontier.

    Args:
        first_child: `[P]` int64 trie nodes.
        log_probs: `[P, width]` of the children given the prefix.
        rules: None if all requests are strict.
        stream: the noise by which relaxed searches draw; the draft's draw and the target's are independent.
    """
    cumulative = frontier.cum_log_probs[:, None] + log_probs
    if rules is None or frontier.scores is None:
        return Candidates(frontier, first_child, cumulative)
    gumbel, relaxed = rules.gumbel[frontier.requests], rules.relaxed[frontier.requests]
    seeds, temperatures = rules.seeds[frontier.requests], rules.temperatures[frontier.requests]
    sampled = frontier.cum_log_probs[:, None] + renormalised(log_probs, temperatures)
    nodes = child_nodes(first_child, log_probs.shape[1])
    shared = perturb(sampled, frontier.scores, gumbel_noise(seeds, nodes, Stream.SHARED)).float()
    drawn = (sampled + gumbel_noise(seeds, nodes, stream)).float()
    scores = torch.where(gumbel[:, None], shared, torch.where(relaxed[:, None], drawn, cumulative))
    return Candidates(frontier, first_child, torch.where((gumbel | relaxed)[:, None], sampled, cumulative), scores)


def renormalised(log_probs: Tensor, temperatures: Tensor) -> Tensor:
    """Log-probabilities at a temperature over the valid continuations alone.

    Args:
        log_probs: `[rows, width]`, -inf where there is no continuation; a row may have none at all.
        temperatures: `[rows]`.
    """
    warped = log_probs / temperatures[:, None]
    total = warped.logsumexp(1, keepdim=True)
    return (warped - total).masked_fill_(log_probs == NEGATIVE_INFINITY, NEGATIVE_INFINITY)
