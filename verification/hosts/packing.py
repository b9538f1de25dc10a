"""Weights laid out once as oneDNN's products read them, where others lay them out anew for each product.

Invariant: packed weights take the place of those of the modules that they are of, which can't compute afterwards; so a model is packed
when all that asks its modules, as the self-check does, is done. (A head stays beside its packed parts, because rows are looked up in it.) A
product is packed only where it gives what the plain one gives, which is tried on the spot: the operations are those that PyTorch's compiler
uses, and no promise is made of them.
"""

from collections.abc import Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What is packed: weights of these types, of at least so many numbers. Products with fewer in float32 cost less than to find oneDNN's code.
FEWEST_WEIGHTS = {torch.float32: 2**18, torch.bfloat16: 1}
# Rows by which a packed product is compared with the plain one, and by how much of the largest number both may differ.
TRIED_ROWS = 3
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


class PackedProduct:
    """The product of rows `[rows, in]` with weights `[out, in]`, and a bias."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self._bias = bias

    @classmethod
    @torch.inference_mode()
    def of(cls, weight: Tensor, bias: Tensor | None) -> "PackedProduct | None":
        """Pack weights; None where there is no such product for them, on this machine or in this build of PyTorch."""
        fewest = FEWEST_WEIGHTS.get(weight.dtype)
        if weight.device.type != "cpu" or fewest is None or weight.numel() < fewest:
            return None
        rows = torch.linspace(-1, 1, TRIED_ROWS * weight.shape[1]).view(TRIED_ROWS, -1).to(weight.dtype)
        plain = F.linear(rows, weight, bias)
        try:
            packed = cls(weight.contiguous(), bias)
            found = packed(rows), packed.added(torch.zeros_like(plain), rows)
        except (AttributeError, RuntimeError):
            return None
        most = ROUNDING[weight.dtype] * float(plain.abs().max())
        return packed if all(float((each - plain).abs().max()) <= most for each in found) else None

    def __call__(self, rows: Tensor) -> Tensor:
        """`[rows, out]`."""
        projected: Tensor = torch.ops.mkldnn._linear_pointwise(_roomy(rows), self._weight, self._bias, "none", [], "")
        return projected[: len(rows)]

    def added(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """`[rows, out]`: `hidden`, of this shape, plus the product."""
        added: Tensor = torch.ops.mkldnn._linear_pointwise.binary(_roomy(rows), _roomy(hidden), self._weight, self._bias, "add")
        return added[: len(rows)]


def room(rows: int) -> int:
    """So many rows, or up to an eighth more: one of the few numbers for which there is code.

    For each number of rows oneDNN makes code of its own, which takes it half a millisecond and half a megabyte.
    """
    if rows == 1:
        return 1
    step = 1 << max(1, (rows - 1).bit_length() - 4)
    return -(-rows // step) * step


def _roomy(rows: Tensor) -> Tensor:
    """The rows, and zeros behind them."""
    more = room(len(rows)) - len(rows)
    return F.pad(rows, (0, 0, 0, more)) if more else rows


class Packable(Protocol):
    """A projection of rows by weights that modules hold."""

    def pack(self) -> Tensor | None:
        """Multiply by packed weights from here on, if there is such a product; returns the weights that were packed."""
        ...


def pack(model: nn.Module, projections: Iterable[Packable]) -> None:
    """Pack the weights of projections, and free those of the linear layers of `model` that held them, which only tell their type then."""
    linear = [module for module in model.modules() if type(module) is nn.Linear]
    for projection in projections:
        if (weight := projection.pack()) is None:
            continue
        first, last = weight.data_ptr(), weight.data_ptr() + weight.nbytes
        for module in linear:
            if first <= module.weight.data_ptr() < last:
                module.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)
