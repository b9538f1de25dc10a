"""The root mean square norm of T5 and Llama, in as few operations as it takes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Norm:
    """A norm of rows, of the weights' type: in float16, transformers leaves the last product of a T5's layer in float32."""

    def __init__(self, module: Any) -> None:
        """`module` is the norm of transformers."""
        self._module = module
        weight = module.weight.detach()
        self._type = weight.dtype
        self._is_written_out = weight.device.type == "cpu" and weight.dtype != torch.float64
        # A row is divided by the root of its sum of squares, not of their mean.
        self._weight = weight.float() * len(weight) ** 0.5
        self._least = torch.tensor(len(weight) * module.variance_epsilon, device=weight.device).sqrt()

    def __call__(self, hidden: Tensor) -> Tensor:
        if not self._is_written_out:
            weight = self._module.weight
            return F.rms_norm(hidden, weight.shape, weight.to(hidden.dtype), self._module.variance_epsilon).to(weight.dtype)
        if hidden.dtype is torch.float32:
            normed = hidden.div(_lengths(hidden).hypot_(self._least)).mul_(self._weight)
            return normed if self._type is torch.float32 else normed.to(self._type)
        rows = hidden.float()
        return rows.mul_(_lengths(rows).hypot_(self._least).reciprocal_()).mul_(self._weight).to(self._type)


def _lengths(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return lengths
