"""Arrays on their way to the device.

Invariant: sending never waits. What the host has decided is copied before the call returns, but the device takes it up in its own time, in
the order of its work; only reading back makes the host wait, and that is done nowhere but where a decision needs it.
"""

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def on_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor on the device; on a CPU it is the same memory."""
    return torch.from_numpy(array).to(device, non_blocking=True)
