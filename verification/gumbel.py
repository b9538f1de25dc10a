"""Shared-noise sampling: stochastic beam search, an exact sample of k identifiers without replacement, verified strictly.

Every prefix of the trie gets Gumbel noise that depends on nothing but the seed and the prefix. A beam search over scores perturbed by that
noise returns a sample without replacement (Kool, van Hoof and Welling 2019, "Stochastic Beams and Where to Find Them", section 3).
Invariant: draft and target see the same noise, so the draft proposes what the target is about to draw, and a strict check keeps the
target's draw exactly; batch, plan and draft cannot change it.

The distribution is that of sampling token by token under the trie: probabilities are renormalised over the valid continuations.
"""

import torch
from torch import Tensor

MASK_53 = (1 << 53) - 1
# Constants of SplitMix64 (Steele, Lea and Flood 2014), as the signed integers that torch computes with.
GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
FIRST_MIX = 0xBF58476D1CE4E5B9 - (1 << 64)
SECOND_MIX = 0x94D049BB133111EB - (1 << 64)


def gumbel_noise(seeds: Tensor, trie_nodes: Tensor) -> Tensor:
    """Standard Gumbel noise of each prefix: a hash of its request's seed and its trie node.

    Args:
        seeds: `[rows]` int64.
        trie_nodes: `[rows, width]` int64.

    Returns:
        `[rows, width]` float64.
    """
    state = _mix(seeds)[:, None] + trie_nodes * GOLDEN
    uniform = ((_mix(state) & MASK_53).double() + 0.5) / (1 << 53)
    return -(-uniform.log()).log()


def perturb(log_probs: Tensor, parents: Tensor, parent_scores: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Perturbed scores of continuations, given that the best of each row equals its parent's perturbed score (equation 23 there).

    Args:
        log_probs: `[rows, width]` of each continuation given its parent, -inf where there is none.
        parents: `[rows]`, log-probabilities of the parents under the sampled distribution.
        parent_scores: `[rows]`, perturbed scores of the parents.
        noise: `[rows, width]` from `gumbel_noise`.

    Returns:
        log-probabilities of the continuations and their perturbed scores, both `[rows, width]` float64; -inf where there is none.
    """
    total = parents[:, None].double() + log_probs.double().log_softmax(1)
    free = total + noise
    best = free.amax(1, keepdim=True)
    limit = parent_scores[:, None].double()
    # log(1 - exp(free - best)), -inf for the best itself: it takes its parent's score, the others stay below in their old order.
    gap = limit - free + torch.log1p(-(free - best).exp())
    score = limit - gap.clamp(min=0) - torch.log1p((-gap.abs()).exp())
    missing = log_probs == float("-inf")
    return total.masked_fill(missing, float("-inf")), score.masked_fill(missing, float("-inf"))


def _mix(state: Tensor) -> Tensor:
    """The finaliser of SplitMix64; torch has no logical shift, so the sign bits that an arithmetic one drags in are masked."""
    state = state + GOLDEN
    state = (state ^ ((state >> 30) & ((1 << 34) - 1))) * FIRST_MIX
    state = (state ^ ((state >> 27) & ((1 << 37) - 1))) * SECOND_MIX
    return state ^ ((state >> 31) & ((1 << 33) - 1))
