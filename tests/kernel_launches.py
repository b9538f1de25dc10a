"""The launch of the Triton kernel on the stand-in: what a launch takes for granted is checked, and PyTorch computes the result.

The kernel is told the strides of queries alone, so whatever else it is given must be contiguous; an address of the host's memory would
end the process of a GPU.
"""

from typing import Any

import torch
from torch import Tensor

from tests.stand_in import DeviceTensor, Punished, StandIn


class KernelLaunches:
    """Stands for `verification.hosts.tree_kernel._attend_stretch`.

    Attributes:
        count: number of launches.
    """

    def __init__(self, device: StandIn) -> None:
        self._device = device
        self.count = 0

    def __getitem__(self, grid: tuple[int, int, int]) -> Any:
        def launch(*args: Any, **constants: Any) -> None:
            tensors = [given for given in args if isinstance(given, Tensor)]
            if not all(isinstance(tensor, DeviceTensor) for tensor in tensors):
                raise Punished("The kernel is given an address of the host.")
            if args[0].stride(-1) != 1 or not all(tensor.held.is_contiguous() for tensor in tensors[1:]):  # type: ignore[attr-defined]
                raise Punished("The kernel reads this tensor as if it was contiguous.")
            self.count += 1
            self._device.run(_attend, (*args[:9], grid[2], constants["STRETCH"]), {})

        return launch


class MergeLaunches(KernelLaunches):
    """Stands for `verification.hosts.tree_kernel._merge_stretches`."""

    def __getitem__(self, grid: tuple[int]) -> Any:  # type: ignore[override]
        def launch(sums: Tensor, norms: Tensor, *args: int, **constants: Any) -> None:
            self.count += 1
            self._device.run(_merge, (sums, norms), {})

        return launch


def _merge(sums: Tensor, norms: Tensor) -> None:
    """Merge the stretches into the first."""
    merged, norm = (sums * norms.softmax(0)[..., None]).sum(0), norms.logsumexp(0)
    sums[0], norms[0] = merged, norm


def _attend(
    query: Tensor,
    cache: Tensor,
    keys: Tensor,
    mask: Tensor,
    biases: Tensor | None,
    queries: Tensor,
    sums: Tensor,
    norms: Tensor,
    scale: float,
    stretches: int,
    size: int,
) -> None:
    """Write each stretch's normalised sums of values, and the logarithms of their divisors."""
    read = cache[keys].float().repeat_interleave(query.shape[1] // cache.shape[1], 2)
    key, value = read.tensor_split([query.shape[2]], dim=-1)
    scores = torch.einsum("rqhs,rchs->rhqc", query[queries].float(), key) * scale
    scores = scores if biases is None else scores + biases
    scores = scores.masked_fill(mask == 0, float("-inf"))
    for stretch in range(stretches):
        own = slice(stretch * size, (stretch + 1) * size)
        norms[stretch, queries] = scores[..., own].logsumexp(-1).transpose(1, 2)
        weights = scores[..., own].softmax(-1).nan_to_num(0.0)
        sums[stretch, queries] = torch.einsum("rhqc,rchs->rqhs", weights, value[:, own])
