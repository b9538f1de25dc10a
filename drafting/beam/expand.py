"""Beam expansion: from beams to their best continuations, for draft and target.

Contract: tensors in, tensors out, fixed shapes, no read to the host. R requests continue P prefixes in all, each by up to `width` children.
What constrained decoding does not allow is masked *before* the top-K, so K come back whenever K are eligible; equal scores are decided by
(rank of the prefix, token), so a list never depends on the batch. Requests are padded to the largest one beside them, or in groups of about
one size where padding all to the largest would take many times as much: so no narrow request's expansion takes as long as that of the
widest beam.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from drafting.array_types import IntArray
from drafting.beam.tree import TokenTree
from drafting.device import NEGATIVE_INFINITY, concat, on_device, stable_topk

# Requests are expanded in groups where padding would make more than so many times as many scores, and more than so many in all.
PADDING_SHARE = 4
MUCH_PADDING = 1 << 16


@dataclass(frozen=True)
class Frontier:
    """The beams of several requests, expanded together.

    Attributes:
        slots: `[P]` int64, the tree nodes of the prefixes, request by request, best first.
        trie_nodes: `[P]` int64, the trie nodes of the prefixes.
        sizes: `[R]`, number of prefixes of each request.
        cum_log_probs: `[P]` float32; -inf where there is no prefix, so that nothing continues it.
        scores: `[P]` float32, by which sampled searches rank; None where no search samples.
        asked: `[P]` int64, 1 where the draft was asked for the continuations in this round, for relaxed verification.
    """

    slots: Tensor
    trie_nodes: Tensor
    sizes: tuple[int, ...]
    cum_log_probs: Tensor
    scores: Tensor | None = None
    asked: Tensor | None = None

    @classmethod
    def of(cls, tree: TokenTree, beams: Sequence[IntArray], sampled: bool) -> "Frontier":
        """Beams in the tree, the `SequenceState.beam_fields` of each request."""
        slots, asked = on_device(concat(beams), tree.token.device).unbind(0)
        scores = tree.score.index_select(0, slots) if sampled else None
        sizes = tuple(beam.shape[1] for beam in beams)
        return cls(slots, tree.trie_node.index_select(0, slots), sizes, tree.cum_log_prob.index_select(0, slots), scores, asked)

    @cached_property
    def rows(self) -> Tensor:
        """`[R, largest size]` int64 indices of each request's prefixes; -1 pads."""
        rows = np.full((len(self.sizes), max(self.sizes)), -1, np.int64)
        rows[np.arange(rows.shape[1]) < np.array(self.sizes)[:, None]] = np.arange(sum(self.sizes))
        return on_device(rows, self.slots.device)

    @cached_property
    def requests(self) -> Tensor:
        """`[P]` int64, the request of each prefix."""
        return on_device(np.repeat(np.arange(len(self.sizes)), self.sizes), self.slots.device)

    def prefixes_of(self, requests: IntArray) -> Tensor:
        """`[prefixes]` int64 indices of some requests' prefixes."""
        starts = np.cumsum(self.sizes) - self.sizes
        found = [np.arange(starts[request], starts[request] + self.sizes[request]) for request in requests]
        return on_device(concat(found), self.slots.device)

    def flatten(self, scores: Tensor, k: int) -> Tensor:
        """`[P, width]` to `[R, at least k]`: all continuations of a request in one row, padded with -inf."""
        requests, width = len(self.sizes), scores.shape[1]
        if max(self.sizes) * requests == len(scores) and len(scores) * width >= k * requests:
            return scores.reshape(requests, -1)
        flat = scores[self.rows].masked_fill_((self.rows < 0)[:, :, None], NEGATIVE_INFINITY).flatten(1)
        return torch.nn.functional.pad(flat, (0, max(0, k - flat.shape[1])), value=NEGATIVE_INFINITY)


class _Ranked:
    """The ranking of `ScoredContinuations` and `Selection`."""

    cum_log_probs: Tensor
    scores: Tensor | None

    @property
    def ranking(self) -> Tensor:
        """The scores by which continuations are ranked, in the shape of `cum_log_probs`."""
        return self.cum_log_probs if self.scores is None else self.scores


@dataclass(frozen=True)
class ScoredContinuations(_Ranked):
    """The continuations of a frontier, with -inf for those that do not exist or are not allowed.

    Attributes:
        first_child: `[P]` int64, the trie node of column 0; children are consecutive, so column c is the trie node `first_child + c`.
        cum_log_probs: `[P, width]` float32.
        scores: `[P, width]` float32, by which they are ranked; None where they are ranked by `cum_log_probs`.
    """

    frontier: Frontier
    first_child: Tensor
    cum_log_probs: Tensor
    scores: Tensor | None = None

    def __post_init__(self) -> None:
        if self.cum_log_probs.ndim != 2 or self.first_child.shape != self.cum_log_probs.shape[:1]:
            shapes = tuple(self.first_child.shape), tuple(self.cum_log_probs.shape)
            raise ValueError(f"First children {shapes[0]} and log-probabilities {shapes[1]} must share rows.")

    def of_requests(self, requests: IntArray) -> "ScoredContinuations":
        """The continuations of some requests alone, in the order of `requests`."""
        if len(requests) == len(self.frontier.sizes):
            return self
        whole, prefixes = self.frontier, self.frontier.prefixes_of(requests)

        def take(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.index_select(0, prefixes)

        slots, trie_nodes, cum_log_probs = (each[prefixes] for each in (whole.slots, whole.trie_nodes, whole.cum_log_probs))
        sizes = tuple(whole.sizes[request] for request in requests)
        frontier = Frontier(slots, trie_nodes, sizes, cum_log_probs, take(whole.scores), take(whole.asked))
        return ScoredContinuations(frontier, self.first_child[prefixes], self.cum_log_probs[prefixes], take(self.scores))

    def select(self, best: Tensor, indices: Tensor) -> "Selection":
        """The continuations at `indices`, `[R, k]` int64, of the flattened ranking, whose scores are `best`."""
        frontier, width = self.frontier, self.cum_log_probs.shape[1]
        ranks, children = indices.div(width, rounding_mode="floor"), indices.remainder(width)
        if indices.shape[1] > max(frontier.sizes) * width:
            # The indices of padding, which are chosen where there are fewer continuations than are wanted, are beyond the last prefix.
            ranks.clamp_(max=max(frontier.sizes) - 1)
        parents = ranks if len(frontier.sizes) == 1 else frontier.rows.gather(1, ranks)
        missing = best == NEGATIVE_INFINITY
        nodes = self.first_child.take(parents).add_(children).masked_fill_(missing, -1)
        parent_slots = frontier.slots.take(parents)
        if self.scores is None:
            return Selection(parent_slots, nodes, best)
        return Selection(parent_slots, nodes, self.cum_log_probs[parents, children].masked_fill_(missing, NEGATIVE_INFINITY), best)


@dataclass(frozen=True)
class Selection(_Ranked):
    """The k best continuations of each request, best first.

    Attributes:
        parent_slots: `[R, k]` int64, the tree node that each continues.
        nodes: `[R, k]` int64 trie nodes; -1 where a request has fewer than k.
        cum_log_probs: `[R, k]` float32; -inf where there is none.
        scores: `[R, k]` float32, by which they are ranked; None where they are ranked by `cum_log_probs`.
    """

    parent_slots: Tensor
    nodes: Tensor
    cum_log_probs: Tensor
    scores: Tensor | None = None

    def put(self, requests: Tensor, part: "Selection") -> None:
        """Write what was selected for some requests, `[requests]` int64, over the first columns of their rows."""
        pairs = [(self.parent_slots, part.parent_slots), (self.nodes, part.nodes), (self.cum_log_probs, part.cum_log_probs)]
        if self.scores is not None and part.scores is not None:
            pairs.append((self.scores, part.scores))
        for table, values in pairs:
            table[:, : values.shape[1]].index_copy_(0, requests, values)


def expand_beam(continuations: ScoredContinuations, k: int) -> Selection:
    """Select the k best continuations of each request."""
    return continuations.select(*stable_topk(continuations.frontier.flatten(continuations.ranking, k), k))


def expand_beams(continuations: ScoredContinuations, counts: Sequence[int]) -> Selection:
    """Select at least `counts[r]` best continuations of each request r; the columns behind them hold further ones, or none (-1)."""
    frontier, k = continuations.frontier, max(counts)
    groups = groups_of_like_size(frontier.sizes, counts, continuations.cum_log_probs.shape[1])
    if len(groups) == 1:
        return expand_beam(continuations, k)
    requests, device = len(counts), frontier.slots.device
    lowest = torch.full((requests, k), NEGATIVE_INFINITY, device=device)
    # A continuation that is missing (-1) gets the request's first prefix as its parent, which is in the request's own tree.
    first = frontier.slots.take(on_device(np.cumsum(frontier.sizes) - frontier.sizes, device))
    scores = None if continuations.scores is None else lowest.clone()
    found = Selection(first[:, None].repeat(1, k), torch.full_like(lowest, -1, dtype=torch.int64), lowest, scores)
    for group in groups:
        part = expand_beam(continuations.of_requests(group), max(counts[request] for request in group))
        found.put(on_device(group, device), part)
    return found


def groups_of_like_size(sizes: Sequence[int], counts: Sequence[int], width: int) -> list[IntArray]:
    """Groups of requests to expand together, `[requests]` int64 each: one of all, or several by size where padding would cost much.

    Args:
        sizes: prefixes of each request.
        counts: continuations that each request wants.
        width: the most children of a prefix.
    """
    own, wanted = np.array(sizes), np.array(counts)
    together = len(own) * int(own.max() * width + wanted.max())
    if together <= max(PADDING_SHARE * int(own.sum() * width + wanted.sum()), MUCH_PADDING):
        return [np.arange(len(own))]
    # Sizes between the same powers of two are alike.
    kinds = np.frexp(own)[1] * 64 + np.frexp(wanted)[1]
    return [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
