"""Relaxed verification: the paper's sampling acceptance (algorithm 2).

At each level p and q are the target's and the draft's distributions over the continuations of the beam: the softmax of cumulative
log-probabilities, both over the same continuations. A drafted continuation y is accepted if u <= p(y) / q(y) for a uniform u. If at least k
are accepted, a uniformly random k of them are kept and the next level is verified; else the accepted ones are kept and the missing drawn
without replacement from max(0, p - q).

Only what the draft has proposed in this round counts as drafted, and q is what the draft said when it was asked. Other nodes of the tree,
such as children or nodes of an earlier round, are not samples of q. Where nothing was proposed the target draws from p, as without a draft.

This is *not* distribution-preserving: choosing k of the accepted at random lets weak continuations replace strong ones, even with a perfect
draft. For an exact sample use the rule `gumbel`. Invariant: k continuations come back whenever k exist; where the residual runs out, as it
does on small levels, the rest is drawn from p.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drafting.beam.continuations import child_nodes
from drafting.beam.expand import ScoredContinuations, Selection, groups_of_like_size
from drafting.beam.gumbel import Stream, gumbel_noise, uniform_noise
from drafting.beam.ranking import BatchRules
from drafting.device import NEGATIVE_INFINITY, arange, find_nodes, on_device

# Wider than a draw from the residual can lie below one from p: Gumbel noise in float64 stays within 40 of 0, and the logarithm of what is
# left of a probability above -750.
TIER = 10_000.0


@dataclass(frozen=True)
class LevelNoise:
    """The random numbers of one level, `[requests, continuations]` float64 each.

    Attributes:
        accept: uniform, compared with p / q.
        keep: uniform; if too many are accepted, those with the largest numbers are kept.
        residual: Gumbel; the best of log-probability plus noise are a draw without replacement.
    """

    accept: Tensor
    keep: Tensor
    residual: Tensor

    @classmethod
    def of(cls, seeds: Tensor, trie_nodes: Tensor) -> "LevelNoise":
        """The noise of trie nodes, `[requests, continuations]` under the requests' seeds."""
        return cls(
            accept=uniform_noise(seeds, trie_nodes, Stream.ACCEPT),
            keep=uniform_noise(seeds, trie_nodes, Stream.KEEP),
            residual=gumbel_noise(seeds, trie_nodes, Stream.RESIDUAL),
        )


def select_relaxed(
    continuations: ScoredContinuations,
    selection: Selection,
    rules: BatchRules,
    proposed: Tensor | None,
    draft: Tensor | None,
    widths: Mapping[int, int],
) -> None:
    """Replace the selection of relaxed searches.

    Args:
        selection: `[R, k]`, at first what a strict search would select; written to.
        proposed: `[R, most]` int64 trie nodes of the next level that the draft has proposed in this round, -2 pads; None if there are none.
        draft: `[P, width]`, the draft's cumulative log-probabilities, anything for a prefix that it has not scored; None without a draft.
        widths: for each row that is a relaxed request, how many prefixes it keeps.
    """
    requests, whole, width = np.array(list(widths)), continuations.frontier, continuations.cum_log_probs.shape[1]
    for group in groups_of_like_size([whole.sizes[request] for request in requests], list(widths.values()), width):
        members = requests[group]
        rows = on_device(members, whole.slots.device)
        asked = None if draft is None else draft.index_select(0, whole.prefixes_of(members))
        own = None if proposed is None else proposed.index_select(0, rows)
        selection.put(
            rows,
            _select(
                continuations.of_requests(members), rules.seeds.index_select(0, rows), own, asked, [widths[request] for request in members]
            ),
        )


def _select(
    continuations: ScoredContinuations, seeds: Tensor, proposed: Tensor | None, draft: Tensor | None, widths: list[int]
) -> Selection:
    """What relaxed searches select, under their seeds; see `select_relaxed`."""
    frontier, k = continuations.frontier, max(widths)
    target = frontier.flatten(continuations.cum_log_probs, k)
    below = child_nodes(continuations.first_child, continuations.cum_log_probs.shape[1])[frontier.rows].flatten(1)
    nodes = torch.nn.functional.pad(below, (0, target.shape[1] - below.shape[1]))
    if draft is None or frontier.asked is None:
        draft = torch.full_like(continuations.cum_log_probs, NEGATIVE_INFINITY)
    else:
        # Where the target has no continuation the draft has none: what is there is older, of a wider batch or another prefix.
        known = (frontier.asked == 1)[:, None] & (continuations.cum_log_probs > NEGATIVE_INFINITY)
        draft = draft.masked_fill(~known, NEGATIVE_INFINITY)
    indices = verify_relaxed(
        target,
        frontier.flatten(draft, k),
        torch.zeros_like(nodes, dtype=torch.bool) if proposed is None else find_nodes(nodes, proposed) >= 0,
        LevelNoise.of(seeds, nodes),
        on_device(np.array(widths), nodes.device),
        k,
    )
    ranking = frontier.flatten(continuations.ranking, k)
    return continuations.select(ranking.gather(1, indices), indices)


def verify_relaxed(target: Tensor, draft: Tensor, drafted: Tensor, noise: LevelNoise, widths: Tensor, k: int) -> Tensor:
    """Select the continuations of one level.

    Args:
        target: `[requests, continuations]` cumulative log-probabilities of the beam's continuations; -inf where there is none.
        draft: the same by the draft; a row of -inf where the draft has said nothing, and then the target draws alone.
        drafted: `[requests, continuations]` bool, whether the draft has proposed the continuation.
        widths: `[requests]` int64, how many each request keeps.
        k: the largest of them.

    Returns:
        `[requests, k]` int64 indices, those kept first and best first; a request that keeps fewer has other indices behind them.
    """
    p, q = _softmax(target), _softmax(draft)
    accepted = drafted & (q > 0) & (noise.accept * q <= p)
    residual = torch.where(accepted, 0.0, (p - q).clamp(min=0))
    # One order for all cases: the accepted at random, then a draw from the residual, then one from what is left of p.
    # At low temperatures p is 0 in float64 for most continuations, and its logarithm still tells them apart.
    drawn = torch.where(residual > 0, residual.log(), target.double().log_softmax(1)) + noise.residual
    tier = torch.where(accepted, 2, torch.where(residual > 0, 1, 0))
    order = torch.where(accepted, noise.keep, drawn) + TIER * tier
    order = order.masked_fill(target == NEGATIVE_INFINITY, NEGATIVE_INFINITY)
    chosen = order.topk(k, dim=1).indices
    kept = arange(k, target.device) < widths[:, None]
    best = target.gather(1, chosen).double().masked_fill(~kept, NEGATIVE_INFINITY)
    return chosen.gather(1, best.sort(dim=1, descending=True, stable=True).indices)


def _softmax(log_probs: Tensor) -> Tensor:
    """`[rows, continuations]` probabilities, all 0 in a row of nothing but -inf."""
    return log_probs.double().softmax(1).nan_to_num(0.0)
