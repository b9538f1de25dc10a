"""Beam expansion: from scored prefixes to the best continuations that the catalog allows.

This is the only place that selects. The draft, the target and every acceptance rule call it, so they cannot disagree about which
continuations exist or who wins a tie. Invariants: invalid and excluded continuations are masked *before* the top-K, so
K come back whenever K are eligible; equal scores are decided by (rank of the prefix, token), so a list never depends on the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.device import arange, concat, on_device
from drafting.trie.eligibility import BatchEligibility
from drafting.trie.item_trie import ItemTrie

IntArray = npt.NDArray[np.int64]

NEGATIVE_INFINITY = float("-inf")
# As the bits of a float32, -2^23 is minus infinity, and 2^23 more is 0.
_INFINITY_BITS = torch.tensor(-(1 << 23), dtype=torch.int32)
# A long row is looked at by stretches of so many places, where it has at least so many times as many of them as are wanted.
STRETCH = 64
MANY_STRETCHES = 4


@dataclass(frozen=True)
class Continuations:
    """The children of some trie nodes, one row per node, padded to the widest.

    Attributes:
        first: `[rows]` int64, the first child; children are neighbours, so the next places of a row are the next trie nodes.
        log_probs: `[rows, width]` float32 of the child given its parent; -inf where none exists or the child is excluded.
    """

    first: Tensor
    log_probs: Tensor

    def __post_init__(self) -> None:
        if self.log_probs.ndim != 2 or self.first.shape != self.log_probs.shape[:1]:
            raise ValueError(
                f"First children {tuple(self.first.shape)} and log-probabilities {tuple(self.log_probs.shape)} must share rows."
            )

    @property
    def nodes(self) -> Tensor:
        """`[rows, width]` int64 trie nodes; any number where none exists."""
        return neighbours(self.first, self.log_probs.shape[1])


@dataclass(frozen=True)
class Candidates:
    """Continuations as the beam ranks them, one row per prefix; -inf where none exists.

    Attributes:
        first: `[rows]` int64, as in `Continuations`.
        scores: `[rows, width]` float32, what decides the rank.
        log_probs: `[rows, width]` float32, cumulative log-probabilities; the very same tensor where they decide the rank.
    """

    first: Tensor
    scores: Tensor
    log_probs: Tensor


@dataclass(frozen=True)
class Selection:
    """The best continuations of each request, best first.

    Attributes:
        parents: `[requests, k]` int64, the slot of the prefix that is continued.
        nodes: `[requests, k]` int64, the trie node reached; -1 where there is none.
        scores: `[requests, k]` float32, what they are ranked by; -inf where the request has fewer continuations than k.
        log_probs: `[requests, k]` float32, their cumulative log-probabilities; the very same tensor where they decide the ranks.
    """

    parents: Tensor
    nodes: Tensor
    scores: Tensor
    log_probs: Tensor

    @property
    def samples(self) -> bool:
        """Whether anything but log-probabilities has decided the ranks."""
        return self.scores is not self.log_probs


@dataclass(frozen=True)
class Frontier:
    """The prefixes of several requests that are continued together.

    Attributes:
        slots: `[prefixes]` int64, the tree nodes, request by request in rank order.
        sizes: prefixes of each request.
    """

    slots: Tensor
    sizes: tuple[int, ...]

    @property
    def widest(self) -> int:
        """The most prefixes that a request has."""
        return max(self.sizes)

    @property
    def is_dense(self) -> bool:
        """Whether every request has as many prefixes, so that no row is padded."""
        return self.widest * len(self.sizes) == len(self.slots)

    @cached_property
    def rows(self) -> Tensor:
        """`[requests, widest]` int64, each request's places in `slots`; -1 pads."""
        rows = np.full((len(self.sizes), self.widest), -1, np.int64)
        rows[np.arange(self.widest) < np.array(self.sizes)[:, None]] = np.arange(sum(self.sizes))
        return on_device(rows, self.slots.device)

    @cached_property
    def requests(self) -> Tensor:
        """`[prefixes]` int64, the request of each prefix."""
        return on_device(np.repeat(np.arange(len(self.sizes)), self.sizes), self.slots.device)

    @classmethod
    def of(cls, slots: Sequence[IntArray], device: torch.device) -> "Frontier":
        """Joins the slots of each request."""
        return cls(on_device(concat(slots), device), tuple(map(len, slots)))

    def places(self, ranks: Tensor) -> Tensor:
        """Where in `slots` the prefixes of some ranks stand; both `[requests, k]` int64, ranks below the widest request's size."""
        return ranks if len(self.sizes) == 1 else self.rows.gather(1, ranks)


def neighbours(first: Tensor, width: int) -> Tensor:
    """`[rows, width]` int64, the trie nodes from each row's first on."""
    return first[:, None] + arange(width, first.device)


def continuations(trie: ItemTrie, parents: Tensor, logits: Tensor, width: int, eligible: BatchEligibility | None) -> Continuations:
    """Log-probabilities of the valid continuations of each prefix.

    Probabilities are normalised over the whole vocabulary and *not* renormalised over the valid tokens, as in the paper (section 3).

    Args:
        parents: `[rows]` int64, where the prefixes stand in the trie.
        logits: `[rows, vocabulary]` of the token after each prefix, any float type.
        width: at least the number of children of every parent, and no more than the most children of any node.
        eligible: which nodes below each row may be entered; None lets everything through.
    """
    first, end = trie.children(parents)
    # Children are neighbours: whole windows of tokens are read, where looking up node by node would take three times as long.
    tokens = trie.token.unfold(0, width, 1).index_select(0, first)
    # Adding 0 or -inf takes no branch, where filling by a mask mispredicts one at every other place.
    log_probs = logits.float().log_softmax(1).gather(1, tokens).add_(trie.barrier(first, end, width))
    if eligible is not None:
        log_probs.add_(torch.add(_INFINITY_BITS, eligible.allowed(first, width), alpha=1 << 23).view(torch.float32))
    return Continuations(first, log_probs)


def expand_beam(candidates: Candidates, frontier: Frontier, k: int) -> Selection:
    """Selects the k best continuations of each request.

    Args:
        candidates: continuations of the frontier's prefixes.
        k: how many to select; where a request has fewer, its last scores are -inf.
    """
    scores = flatten_requests(candidates.scores, frontier, k)
    return select(candidates, frontier, scores, top_places(scores, k))


def flatten_requests(scores: Tensor, frontier: Frontier, k: int) -> Tensor:
    """All continuations of a request in one row: `[rows, width]` to `[requests, places]`, at least k places, padded with -inf."""
    if frontier.is_dense and scores.numel() >= k * len(frontier.sizes):
        return scores.reshape(len(frontier.sizes), -1)
    flat = scores[frontier.rows].masked_fill_((frontier.rows < 0)[:, :, None], NEGATIVE_INFINITY).flatten(1)
    return torch.nn.functional.pad(flat, (0, max(0, k - flat.shape[1])), value=NEGATIVE_INFINITY)


def select(candidates: Candidates, frontier: Frontier, scores: Tensor, places: Tensor) -> Selection:
    """The continuations at some places of the flattened requests.

    Args:
        scores: `[requests, places]` from `flatten_requests`.
        places: `[requests, k]` int64.
    """
    width = candidates.scores.shape[1]
    best_scores = scores.gather(1, places)
    ranks, children = places.div(width, rounding_mode="floor"), places.remainder(width)
    if scores.shape[1] > frontier.widest * width:
        ranks.clamp_(max=frontier.widest - 1)
    parents = frontier.places(ranks)
    missing = best_scores == NEGATIVE_INFINITY
    nodes = candidates.first.take(parents).add_(children).masked_fill_(missing, -1)
    same = candidates.log_probs is candidates.scores
    log_probs = best_scores if same else candidates.log_probs[parents, children].masked_fill_(missing, NEGATIVE_INFINITY)
    return Selection(frontier.slots.take(parents), nodes, best_scores, log_probs)


def top_places(scores: Tensor, k: int) -> Tensor:
    """The places of the k largest float32 scores in each row, best first, the earlier place first among equals.

    Of a long row only the k stretches with the best scores are looked at: each of the k best lies in one of them, because a stretch is only
    passed over for k others whose best scores all come before its own.
    """
    rows, width = scores.shape
    if width < MANY_STRETCHES * k * STRETCH:
        return _top_places(scores, k)
    padded = torch.nn.functional.pad(scores, (0, -width % STRETCH), value=NEGATIVE_INFINITY).view(rows, -1, STRETCH)
    # In the order of their places, which is what decides among equal scores.
    stretches = _top_places(padded.amax(2), k).sort(1).values
    best = padded.gather(1, stretches[:, :, None].expand(-1, -1, STRETCH)).flatten(1)
    places = (stretches[:, :, None] * STRETCH + arange(STRETCH, scores.device)).flatten(1)
    return places.gather(1, _top_places(best, k))


def _top_places(scores: Tensor, k: int) -> Tensor:
    """The same by one sort key a score.

    `torch.topk` leaves the order of equal scores open. Each score is therefore mapped to an integer of the same order and joined with its
    place into one 64-bit key, the smaller the better, so that no two keys are equal.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 makes -0.0 and 0.0 the same bits
    ordered = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)
    return arange(scores.shape[1], scores.device).sub(ordered, alpha=1 << 32).topk(k, dim=1, largest=False).indices


def find_nodes(wanted: Tensor, there: Tensor) -> Tensor:
    """Where each wanted prefix stands among others.

    A prefix is named by its trie node, so that a hit is the same prefix with the same ancestors.

    Args:
        wanted: `[requests, k]` int64 trie nodes; -1 pads.
        there: `[requests, nodes]` int64 trie nodes, distinct within a request; -2 pads.

    Returns:
        `[requests, k]` int64 places in `there`; -1 where the prefix is not there.
    """
    if not there.shape[1]:
        return torch.full_like(wanted, -1)
    same = wanted[:, :, None] == there[:, None, :]
    return same.byte().argmax(2).masked_fill_(~same.any(2), -1)


def places_of(wanted: IntArray, there: IntArray) -> IntArray:
    """`find_nodes` for arrays, of one request: `[wanted]` int64 places in `there`, -1 where the prefix is not there."""
    if not len(there):
        return np.full_like(wanted, -1)
    order = there.argsort()
    places = order[np.searchsorted(there, wanted, sorter=order).clip(max=len(there) - 1)]
    return np.where(there[places] == wanted, places, -1)
