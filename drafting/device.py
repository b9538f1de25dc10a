"""Arrays on their way to the device.

Invariant: sending does not wait for what the device has been given. What the host has decided is copied before the call returns, but the
device takes it up in its own time, in the order of its work (an array of more than some tens of kilobytes may have to wait for its turn);
only reading back makes the host wait, and that happens only where a decision needs it. Constants of all steps are sent once.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


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
