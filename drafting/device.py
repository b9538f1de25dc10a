"""Arrays on their way to the device, and operations on tensors that PyTorch leaves open.

Invariant: sending does not wait for what the device has been given. What the host has decided is copied before the call returns, but the
device takes it up in its own time, in the order of its work (an array of more than some tens of kilobytes may have to wait for its turn);
only reading back makes the host wait, and that happens only where a decision needs it. Constants of all steps are sent once. Equal scores
are decided by their index, so a top-K never depends on the batch or the device.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

NEGATIVE_INFINITY = float("-inf")
# A long row is looked at by stretches of so many scores, where it has at least so many times as many of them as are wanted.
STRETCH = 64
MANY_STRETCHES = 4
# Few nodes are found by comparing each with each, which takes fewer operations than sorting.
MANY_PAIRS = 64 * 512


def on_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor on the device; on a CPU it is the same memory."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.to(device, non_blocking=True)


def is_async(device: torch.device) -> bool:
    """True if reading from the device waits for its work."""
    return device.type != "cpu"


def on_host(tensors: Sequence[Tensor]) -> list[npt.NDArray[Any]]:
    """Tensors of int64 and float32 as arrays, in one transfer."""
    if not is_async(tensors[0].device):
        return [tensor.numpy() for tensor in tensors]
    # All of one type: a number of another travels as its bits.
    bits = [tensor if tensor.dtype is torch.int64 else tensor.view(torch.int32).long() for tensor in tensors]
    joined = torch.cat([tensor.flatten() for tensor in bits]).cpu().numpy()
    ends = np.cumsum([tensor.numel() for tensor in tensors])
    return [
        (part if tensor.dtype is torch.int64 else part.astype(np.int32).view(np.float32)).reshape(tensor.shape)
        for part, tensor in zip(np.split(joined, ends[:-1]), tensors, strict=True)
    ]


def concat(rows: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """At least one array, one behind the other along the last axis; the very same if there is but one."""
    return rows[0] if len(rows) == 1 else np.concatenate(rows, axis=-1)


def grown(table: Tensor, rows: int, most: int) -> Tensor:
    """A table of at least so many rows with the same beginning and zeros behind it; twice as long, but never of more rows than `most`."""
    longer = table.new_zeros(min(most, max(rows, 2 * len(table))), *table.shape[1:])
    longer[: len(table)] = table
    return longer


def pad_stack(rows: Sequence[npt.NDArray[Any]], fill: int | bool) -> npt.NDArray[Any]:
    """`[rows, ..., most]`: stack one or more arrays of equal shape but for the last axis, which is padded at the end."""
    padded = np.full((len(rows), *rows[0].shape[:-1], max(row.shape[-1] for row in rows)), fill, rows[0].dtype)
    for target, row in zip(padded, rows, strict=True):
        target[..., : row.shape[-1]] = row
    return padded


# Steps count few different things: columns of a prompt, beams, children of a level.
@lru_cache(maxsize=256)
def arange(count: int, device: torch.device) -> Tensor:
    """`[count]` int64, the numbers from 0 on; shared by all callers, so do not write to it."""
    # Usable in training too, where a tensor that inference has made is not.
    with torch.inference_mode(False):
        return torch.arange(count, device=device)


def stable_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest float32 scores in each row and their indices, best first, the smaller index first among equals.

    Of a long row only the stretches with the best scores are looked at: each of the k best lies in one of k, because a stretch is only
    passed over for k others whose best scores all come before its own.
    """
    if scores.device.type == "cpu" and k < scores.shape[1]:
        values, indices = _topk(scores, k + 1)
        # Without equals there is but one answer, and reading whether there are is free on a CPU.
        if bool((values[:, 1:] < values[:, :-1]).all()):
            return values[:, :k], indices[:, :k]
    return _stable_topk(scores, k)


def _topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """k scores and their indices, best first: if no two of these are equal, all but the last are the largest, and none is as large."""
    if scores.shape[1] < MANY_STRETCHES * k * STRETCH:
        return scores.topk(k, dim=1)
    stretches = _in_stretches(scores)
    best = stretches.amax(2).topk(k, dim=1, sorted=False).indices
    values, indices = stretches.gather(1, best[:, :, None].expand(-1, -1, STRETCH)).flatten(1).topk(k, dim=1)
    return values, _of_stretches(best, indices)


def _stable_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`stable_topk`, whatever is equal."""
    if scores.shape[1] < MANY_STRETCHES * k * STRETCH:
        indices = _sorted_by_key(scores, k)
        return scores.gather(1, indices), indices
    stretches = _in_stretches(scores)
    # The stretches stand in the order of their indices, which decide among equal scores.
    best = _sorted_by_key(stretches.amax(2), k).sort(1).values
    within = stretches.gather(1, best[:, :, None].expand(-1, -1, STRETCH)).flatten(1)
    indices = _sorted_by_key(within, k)
    return within.gather(1, indices), _of_stretches(best, indices)


def _in_stretches(scores: Tensor) -> Tensor:
    """`[rows, stretches, STRETCH]`; the last one is padded with -inf."""
    return torch.nn.functional.pad(scores, (0, -scores.shape[1] % STRETCH), value=NEGATIVE_INFINITY).view(len(scores), -1, STRETCH)


def _of_stretches(stretches: Tensor, indices: Tensor) -> Tensor:
    """Indices in whole rows, from indices in the scores of some stretches one behind the other."""
    return stretches.gather(1, indices.div(STRETCH, rounding_mode="floor")).mul_(STRETCH).add_(indices.remainder(STRETCH))


def _sorted_by_key(scores: Tensor, k: int) -> Tensor:
    """The indices of the k largest scores by one sort key a score, the smaller index first among equals.

    `torch.topk` leaves the order of equal scores open. Each score is therefore mapped to an integer of the same order and joined with its
    index into one 64-bit key, the smaller the better, so that no two keys are equal.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 makes -0.0 and 0.0 the same bits
    ordered = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)
    return arange(scores.shape[1], scores.device).sub(ordered, alpha=1 << 32).topk(k, dim=1, largest=False).indices


def find_nodes(wanted: Tensor, among: Tensor) -> Tensor:
    """The index of each wanted prefix among others, the first of those that repeat it. A prefix is named by its trie node, so its ancestors
    are the same, too.

    Args:
        wanted: `[requests, k]` int64 trie nodes; -1 pads.
        among: `[requests, nodes]` int64 trie nodes; -2 pads.

    Returns:
        `[requests, k]` int64; -1 for a prefix that is not there.
    """
    if not among.shape[1]:
        return torch.full_like(wanted, -1)
    if wanted.shape[1] * among.shape[1] > MANY_PAIRS:
        ordered, order = among.sort(dim=1, stable=True)
        found = torch.searchsorted(ordered, wanted).clamp_(max=among.shape[1] - 1)
        return order.gather(1, found).masked_fill_(ordered.gather(1, found) != wanted, -1)
    same = wanted[:, :, None] == among[:, None, :]
    return same.byte().argmax(2).masked_fill_(~same.any(2), -1)
