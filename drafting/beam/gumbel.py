"""Gumbel noise for sampling searches: a hash of a seed and a prefix, so that target and draft get the same number.

A beam search over scores perturbed by Gumbel noise returns an exact sample without replacement (Kool, van Hoof, Welling 2019, "Stochastic
Beams and Where to Find Them"). Invariant: noise depends on nothing but the seed, the stream and the prefix. Draft and target
therefore see the same noise, the draft proposes what the target is about to draw, and neither batch nor plan can change a draw.
"""

from enum import IntEnum

import torch
from torch import Tensor

MASK_53 = (1 << 53) - 1
LARGEST = 1 - 2.0**-53
# Constants of SplitMix64 (Steele, Lea and Flood 2014), as the signed integers that torch computes with.
GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
FIRST_MIX = 0xBF58476D1CE4E5B9 - (1 << 64)
SECOND_MIX = 0x94D049BB133111EB - (1 << 64)


class Stream(IntEnum):
    """The purpose of random numbers; the streams of a seed are independent."""

    SHARED = 0
    DRAFT = 1
    ACCEPT = 2
    KEEP = 3
    RESIDUAL = 4
    TEXT = 5


def uniform_noise(seeds: Tensor, trie_nodes: Tensor, stream: Stream) -> Tensor:
    """Uniform noise in (0, 1) of each prefix.

    Args:
        seeds: `[rows]` int64.
        trie_nodes: `[rows, width]` int64.

    Returns:
        `[rows, width]` float64.
    """
    state = _mix(_mix(seeds) + stream)[:, None] + trie_nodes * GOLDEN
    # The largest of these numbers would be rounded to 1.
    return (((_mix(state) & MASK_53).double() + 0.5) / (1 << 53)).clamp_(max=LARGEST)


def gumbel_noise(seeds: Tensor, trie_nodes: Tensor, stream: Stream = Stream.SHARED) -> Tensor:
    """Standard Gumbel noise of each prefix; see `uniform_noise`."""
    return -(-uniform_noise(seeds, trie_nodes, stream).log()).log()


def perturb(log_probs: Tensor, parent_scores: Tensor, noise: Tensor) -> Tensor:
    """Perturbed scores of continuations, given that the best of each row equals its parent's perturbed score (equation 23 there).

    Args:
        log_probs: `[rows, width]` cumulative log-probabilities of the continuations, -inf where there is none.
        parent_scores: `[rows]`, perturbed scores of the parents.
        noise: `[rows, width]` from `gumbel_noise`.

    Returns:
        `[rows, width]` float64; -inf where there is none.
    """
    free = log_probs.double() + noise
    best = free.amax(1, keepdim=True)
    limit = parent_scores[:, None].double()
    # log(1 - exp(free - best)), -inf for the best itself: it takes its parent's score, the others stay below in their old order.
    gap = limit - free + torch.log1p(-(free - best).exp())
    score = limit - gap.clamp(min=0) - torch.log1p((-gap.abs()).exp())
    return score.masked_fill(log_probs == float("-inf"), float("-inf"))


def _mix(state: Tensor) -> Tensor:
    """The finaliser of SplitMix64; torch has no logical shift, so the sign bits that an arithmetic one drags in are masked."""
    state = state + GOLDEN
    state = (state ^ ((state >> 30) & ((1 << 34) - 1))) * FIRST_MIX
    state = (state ^ ((state >> 27) & ((1 << 37) - 1))) * SECOND_MIX
    return state ^ ((state >> 31) & ((1 << 33) - 1))
