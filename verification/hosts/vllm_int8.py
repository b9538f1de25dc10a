"""Weights of 8 bits on CPUs (`--quantization int8`): vLLM's own integer products, for checkpoints whose weights are not integers.

Invariant: each row of weights has a scale, and so has each token that is multiplied by them, so what a request gets does not depend on the
others of its forward: sums of integers are exact in any order. For the same reason attention is computed in float64. Norms, experts and
layers that every device has whole stay as they are. The logits of the catalog's tokens are made in float32, because they decide; only the
sum over a large vocabulary, in which errors even out, is made of integers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vllm.model_executor.kernels.linear import init_int8_linear_kernel
from vllm.model_executor.layers.linear import ColumnParallelLinear, RowParallelLinear, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig, QuantizeMethodBase

from verification.hosts.checkpoint import HostError
from verification.hosts.head import SUMMED_TOKENS, HeadPart, LinearHead
from verification.hosts.vllm_attention import INT8

# Instructions for products of integers of 8 bits, as torch calls them.
INSTRUCTIONS = ("amx_int8", "avx512_vnni")
# Outputs that vLLM's kernel computes at once. It also accepts an odd multiple of half of it, and then fails.
BLOCK_OUTPUTS = 32


def check_int8(precision: torch.dtype, on_cpu: bool) -> None:
    """Refuse weights of 8 bits where they would be computed otherwise, or slower than others.

    Raises:
        HostError: there is no kernel for this device or precision.
    """
    if not on_cpu:
        raise HostError("Quantizing weights to int8 is for CPUs: on a GPU use --quantization fp8.")
    if not any(torch.cpu.get_capabilities().get(name) for name in INSTRUCTIONS):
        raise HostError("This CPU has no instructions for int8 (AMX or AVX-512 VNNI): serve weights as they are.")
    if precision != torch.bfloat16:
        raise HostError("With --quantization int8 all else is computed in bfloat16: add --dtype bfloat16.")


class Int8Product:
    """Multiplies rows by weights of 8 bits."""

    def __init__(self, layer: Any) -> None:
        """Take over the weights `[outputs, inputs]` of a layer, as vLLM's kernel lays them out."""
        self._layer = layer
        self._outputs = len(layer.weight)
        self._padding = -self._outputs % BLOCK_OUTPUTS
        weight = F.pad(layer.weight.detach(), (0, 0, 0, self._padding))
        if self._padding and layer.bias is not None:
            # Some of the kernels take this one, others the one that comes with the states.
            layer.bias = nn.Parameter(F.pad(layer.bias.detach(), (0, self._padding)), requires_grad=False)
        scale = weight.abs().amax(1, keepdim=True).float().clamp_(min=torch.finfo(torch.float32).tiny).div_(127)
        layer.weight = nn.Parameter(weight.float().div_(scale).round_().to(torch.int8), requires_grad=False)
        layer.weight_scale = nn.Parameter(scale, requires_grad=False)
        layer.input_scale = layer.input_zero_point = layer.azp_adj = None
        # Asked for by the kernel of CPUs without AMX.
        layer.logical_widths = [len(weight)]
        self._kernel = init_int8_linear_kernel(
            is_channelwise=True, is_static_input_scheme=False, input_symmetric=True, module_name=type(self).__name__
        )
        self._kernel.process_weights_after_loading(layer)

    def __call__(self, states: Tensor, bias: Tensor | None) -> Tensor:
        """`[..., outputs]` bfloat16."""
        # Transformers' code has an axis of sequences, too, and the kernels take rows only.
        padded = None if bias is None else F.pad(bias, (0, self._outputs + self._padding - len(bias)))
        product: Tensor = self._kernel.apply_weights(self._layer, states.flatten(0, -2), padded)
        return product[:, : self._outputs].contiguous().view(*states.shape[:-1], self._outputs)


class Int8LinearMethod(UnquantizedLinearMethod):  # type: ignore[misc]
    """A linear layer that is loaded as it is, and quantized then."""

    _product: Int8Product

    def process_weights_after_loading(self, layer: Any) -> None:
        """Quantize."""
        self._product = Int8Product(layer)

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Multiply."""
        return self._product(x, bias)


@register_quantization_config(INT8)
class Int8Config(QuantizationConfig):  # type: ignore[misc]
    """vLLM's question which layers are quantized, and how."""

    def get_name(self) -> Any:
        """As it is registered."""
        return INT8

    @classmethod
    def get_supported_act_dtypes(cls) -> list[torch.dtype]:
        """Types of what is multiplied."""
        return [torch.bfloat16]

    @classmethod
    def get_min_capability(cls) -> int:
        """The least capability of a GPU; it runs on none."""
        return 0

    @classmethod
    def get_config_filenames(cls) -> list[str]:
        """No files: a checkpoint holds nothing about it."""
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Int8Config":
        """There is nothing to choose."""
        return cls()

    def get_quant_method(self, layer: nn.Module, prefix: str) -> QuantizeMethodBase | None:
        """A method of its own for each large layer; None for one that stays as it is."""
        return Int8LinearMethod() if isinstance(layer, ColumnParallelLinear | RowParallelLinear) else None


@dataclass(frozen=True, eq=False)
class Int8Head(LinearHead):
    """A head whose normaliser is summed over products of integers, and whose logits are made in float32, where company shows least."""

    _products: list[Int8Product] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        for first in range(0, self.vocabulary, SUMMED_TOKENS):
            block: Any = nn.Module()
            part = self._part(first, min(first + SUMMED_TOKENS, self.vocabulary))
            block.weight, block.bias = nn.Parameter(part.weight, requires_grad=False), part.bias
            self._products.append(Int8Product(block))

    def _multiply(self, states: Tensor, part: HeadPart) -> Tensor:
        """As of a `LinearHead`."""
        return self.treatment(F.linear(states.float(), part.weight.float(), None if part.bias is None else part.bias.float()))

    def _blocks(self, states: Tensor) -> Iterator[Tensor]:
        """As of a `LinearHead`."""
        for first, product in zip(range(0, self.vocabulary, SUMMED_TOKENS), self._products, strict=True):
            part = self._part(first, min(first + SUMMED_TOKENS, self.vocabulary))
            yield self.treatment(product(states, part.bias).float())
