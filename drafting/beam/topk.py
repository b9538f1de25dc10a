"""Top-K with decided ties, and where selected prefixes stand among others.

Invariant: equal scores are decided by their index, so what is selected never depends on the batch or the device.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.device import arange

IntArray = npt.NDArray[np.int64]

NEGATIVE_INFINITY = float("-inf")
# A long row is looked at by stretches of so many scores, where it has at least so many times as many of them as are wanted.
STRETCH = 64
MANY_STRETCHES = 4


def stable_topk(scores: Tensor, k: int) -> Tensor:
    """The indices of the k largest float32 scores in each row, best first, the smaller index first among equals.

    Of a long row only the k stretches with the best scores are looked at: each of the k best lies in one of them, because a stretch is only
    passed over for k others whose best scores all come before its own.
    """
    rows, width = scores.shape
    if width < MANY_STRETCHES * k * STRETCH:
        return _stable_topk(scores, k)
    padded = torch.nn.functional.pad(scores, (0, -width % STRETCH), value=NEGATIVE_INFINITY).view(rows, -1, STRETCH)
    # In the order of their indices, which decide among equal scores.
    stretches = _stable_topk(padded.amax(2), k).sort(1).values
    best = padded.gather(1, stretches[:, :, None].expand(-1, -1, STRETCH)).flatten(1)
    indices = (stretches[:, :, None] * STRETCH + arange(STRETCH, scores.device)).flatten(1)
    return indices.gather(1, _stable_topk(best, k))


def _stable_topk(scores: Tensor, k: int) -> Tensor:
    """The same by one sort key a score.

    `torch.topk` leaves the order of equal scores open. Each score is therefore mapped to an integer of the same order and joined with its
    index into one 64-bit key, the smaller the better, so that no two keys are equal.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 makes -0.0 and 0.0 the same bits
    ordered = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)
    return arange(scores.shape[1], scores.device).sub(ordered, alpha=1 << 32).topk(k, dim=1, largest=False).indices


def find_nodes(wanted: Tensor, among: Tensor) -> Tensor:
    """The index of each wanted prefix among others. A prefix is named by its trie node, so its ancestors are the same, too.

    Args:
        wanted: `[requests, k]` int64 trie nodes; -1 pads.
        among: `[requests, nodes]` int64 trie nodes, distinct within a request; -2 pads.

    Returns:
        `[requests, k]` int64; -1 for a prefix that is not there.
    """
    if not among.shape[1]:
        return torch.full_like(wanted, -1)
    same = wanted[:, :, None] == among[:, None, :]
    return same.byte().argmax(2).masked_fill_(~same.any(2), -1)


def find_in_array(wanted: IntArray, among: IntArray) -> IntArray:
    """`find_nodes` for one request on the host: `[wanted]` int64 indices in `among`, -1 for a prefix that is not there."""
    if not len(among):
        return np.full_like(wanted, -1)
    order = among.argsort()
    indices = order[np.searchsorted(among, wanted, sorter=order).clip(max=len(among) - 1)]
    return np.where(among[indices] == wanted, indices, -1)
