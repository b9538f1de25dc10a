"""Arrays on their way to the device.

Invariant: sending never waits. What the host has decided is copied before the call returns, but the device takes it up in its own time, in
the order of its work; only reading back makes the host wait, and that is done nowhere but where a decision needs it. What every step needs
alike is sent once.
"""

from functools import lru_cache
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def on_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor on the device; on a CPU it is the same memory."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.to(device, non_blocking=True)


# Steps count few different things: columns of a prompt, beams, children of a level.
@lru_cache(maxsize=256)
def counting(count: int, device: torch.device) -> Tensor:
    """`[count]` int64, the numbers from 0 on; everybody's, so nobody may write to it."""
    # Usable in training too, where a tensor that inference has made is not.
    with torch.inference_mode(False):
        return torch.arange(count, device=device)
