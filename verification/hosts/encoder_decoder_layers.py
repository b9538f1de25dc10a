"""The parts that the layers of a T5's encoder and of its decoder are built of, in few operations.

Invariant: transformers' modules hold all weights until they are packed. In float32 their products are called directly, with the weights
laid out as products of few rows read them. Modules that are anything else (of other precisions, quantized, made exact) compute for
themselves. What is handed in as `hidden` may be written to.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from verification.hosts.norm import Norm
from verification.hosts.packing import PackedProduct


class Projection:
    """A projection of rows, `[rows, in]` to `[rows, out]`."""

    def __init__(self, module: Any) -> None:
        """`module` is a linear layer of the model, of any kind."""
        self._module = module
        self._weight: Tensor | None = None
        self._packed: PackedProduct | None = None
        if _is_linear(module) and module.weight.dtype == torch.float32:
            self._weight = module.weight.detach().t()

    def pack(self) -> Tensor | None:
        """As `Packable.pack`."""
        if not _is_linear(self._module):
            return None
        weight: Tensor = self._module.weight.detach()
        self._packed = PackedProduct.of(weight, None)
        if self._packed is None:
            return None
        self._weight = None
        return weight

    def __call__(self, rows: Tensor) -> Tensor:
        if self._packed is not None:
            return self._packed(rows)
        projected: Tensor = self._module(rows) if self._weight is None else torch.mm(rows, self._weight)
        return projected

    def added(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """`hidden`, `[rows, out]`, plus the projected rows."""
        if self._packed is not None:
            return self._packed.added(hidden, rows)
        return finite(hidden + self._module(rows)) if self._weight is None else hidden.addmm_(rows, self._weight)

    def leave_to_module(self) -> None:
        """Let the module compute from here on: it has been given another forward."""
        self._weight = None


class Dense:
    """The dense part of a layer, gated or not.

    Attributes:
        projections: what goes in, and what comes out; none where the module computes in a way of its own.
    """

    def __init__(self, layer: Any) -> None:
        """`layer` is the norm and the dense part of transformers."""
        self._norm, self._module = Norm(layer.layer_norm), layer.DenseReluDense
        self._is_gated = hasattr(self._module, "wi_1")
        self._act = torch.relu_ if type(self._module.act) is nn.ReLU else self._module.act
        names = ("wi_0", "wi_1") if self._is_gated else ("wi",)
        linear = [self._module.get_submodule(name) for name in (*names, "wo")]
        # In float16, the last product is one of float32.
        is_known = all(map(_is_linear, linear)) and len({module.weight.dtype for module in linear}) == 1
        self.projections = (Projection(joined(self._module, names)), Projection(lay_out(self._module.wo))) if is_known else ()

    def added(self, hidden: Tensor) -> Tensor:
        """`hidden`, `[rows, size]`, plus what the dense part makes of it."""
        rows = self._norm(hidden)
        if not self.projections:
            return finite(hidden + self._module(rows))
        inner, outer = self.projections
        if self._is_gated:
            gate, gated = inner(rows).chunk(2, -1)
            return outer.added(hidden, self._act(gate) * gated)
        return outer.added(hidden, self._act(inner(rows)))


class _SideBySide(nn.Module):
    """Several projections of the same rows, their results side by side."""

    def __init__(self, projections: Sequence[nn.Module]) -> None:
        super().__init__()
        self.projections = nn.ModuleList(projections)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.cat([projection(rows) for projection in self.projections], -1)


def joined(module: Any, names: Sequence[str]) -> nn.Module:
    """The projections of a module that read the same rows as one; where they are plain, in one product of the same memory.

    It becomes a module of the model, like those that it stands for, so that `make_exact` finds it.
    """
    projections = [module.get_submodule(name) for name in names]
    if all(map(_is_linear, projections)):
        weight = torch.cat([each.weight.detach() for each in projections])
        both: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        both.weight = nn.Parameter(_as_read(weight), requires_grad=False)
        for each, own in zip(projections, both.weight.tensor_split(len(projections)), strict=True):
            each.weight = nn.Parameter(own, requires_grad=False)
    else:
        both = _SideBySide(projections)
    module.add_module("joined", both)
    return both


def lay_out(module: Any) -> Any:
    """The module, its weights laid as products read them."""
    if _is_linear(module):
        module.weight = nn.Parameter(_as_read(module.weight.detach()), requires_grad=False)
    return module


def _is_linear(module: Any) -> bool:
    # Quantized weights have layouts of their own.
    return type(module) is nn.Linear and type(module.weight) is nn.Parameter and module.bias is None


def _as_read(weight: Tensor) -> Tensor:
    """The same `[out, in]`; in float32 on a CPU, the numbers of an input side by side, which is twice as fast for few rows."""
    return weight.t().contiguous().t() if weight.device.type == "cpu" and weight.dtype == torch.float32 else weight


def bias_tables(attentions: Sequence[Any], distances: int, before: int) -> tuple[list[Tensor], list[int]]:
    """`[heads, distances]` float32 of each layer that has biases of its own, for keys from `before` positions before a query on.

    Returns:
        the tables, and for each layer the index of its own; in most families the first layer's biases are those of all.
    """
    tables = []
    for attention in attentions:
        if attention.has_relative_attention_bias:
            with torch.inference_mode():
                biases: Tensor = attention.compute_bias(1, distances, past_seen_tokens=before)
            tables.append(biases[0, :, 0].float())
    return tables, [min(index, len(tables) - 1) for index in range(len(attentions))]


def finite(hidden: Tensor) -> Tensor:
    """The states within the range of float16, where T5's grow beyond; of another precision as they are."""
    if hidden.dtype != torch.float16:
        return hidden
    most = torch.finfo(torch.float16).max - 1000
    return hidden.clamp(-most, most)
