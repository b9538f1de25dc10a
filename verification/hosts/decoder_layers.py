"""The layers of Llama, Mistral, Qwen2 and Qwen3 written out, in as few operations as they take.

Invariant: a model is served by these layers only where its modules are the very classes of its family in transformers, unquantized, without
hooks, in one precision; all else keeps transformers' own code. Each weight is held once: projections that read the same rows are joined in
one tensor, of which the modules' weights become parts, so transformers' code computes the same from the same numbers until they are packed
(the self-check at start holds both beside each other). A model is looked at when it is hosted: hooks that are added to it afterwards are
not called.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import SiLUActivation

from drafting.beam.model import TreeBatch
from verification.hosts.norm import Norm
from verification.hosts.packing import PackedProduct

# How the names of a model's classes begin, by the type in its configuration.
FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
PARTS = ("ForCausalLM", "Model", "DecoderLayer", "Attention", "MLP", "RMSNorm", "RotaryEmbedding")
# Rotary positions whose frequencies are the same in each forward.
ROTARY = {"default", "linear", "llama3", "yarn"}
# On a CPU, float32 weights of so many numbers at most are laid as products of few rows read them.
FEW_WEIGHTS = 2**19

# Attends in one layer: takes its index, its queries, keys and values, `[tokens, heads, head size]` each, and a factor of scores; returns a
# tensor of the queries' shape.
Attend = Callable[[int, Tensor, Tensor, Tensor, float], Tensor]


class DecoderLayers:
    """All layers of a model, from tokens to the states that its head reads."""

    def __init__(self, decoder: Any) -> None:
        """`decoder` is transformers' model without its head."""
        self._embeddings = decoder.embed_tokens.weight.detach()
        self._rotary = decoder.rotary_emb
        self._layers = [_Layer(index, layer) for index, layer in enumerate(decoder.layers)]
        self._norm = Norm(decoder.norm)

    @classmethod
    def of(cls, model: PreTrainedModel, attentions: Sequence[nn.Module]) -> "DecoderLayers | None":
        """The layers of a causal model; None if it is not plainly of one of the families.

        Args:
            attentions: its attention layers, in the order in which a forward calls them.
        """
        if not _is_plain(model):
            return None
        decoder: Any = model.base_model
        if [layer.self_attn for layer in decoder.layers] != list(attentions):
            return None
        return cls(decoder)

    def states(self, batch: TreeBatch, attend: Attend) -> Tensor:
        """`[outputs, size]`, what the head reads after each of the batch's outputs."""
        # It has the type that products have, and the layers write to it.
        hidden = F.embedding(batch.tokens, self._embeddings)
        cos, sin = self._turns(batch.positions, hidden.dtype)
        for layer in self._layers[:-1]:
            hidden = layer(hidden, cos, sin, attend)
        # Keys and values of the last layer are all that is left to make of tokens that are not asked what follows.
        return self._norm(self._layers[-1](hidden, cos, sin, attend, batch.at_outputs))

    @property
    def projections(self) -> "list[_Projection]":
        """All products with weights."""
        return [projection for layer in self._layers for projection in layer.projections]

    def _turns(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """`[tokens, 1, half a head's size]` each: cosine and sine of the angles by which heads are turned."""
        angles = positions[:, None, None] * self._rotary.inv_freq.float()
        scale = self._rotary.attention_scaling
        cos, sin = angles.cos(), angles.sin_()
        if scale != 1:
            cos, sin = cos.mul_(scale), sin.mul_(scale)
        return cos.to(dtype), sin.to(dtype)


class _Layer:
    """One layer: attention and the dense part.

    Attributes:
        projections: all of its products with weights.
    """

    def __init__(self, index: int, layer: Any) -> None:
        attention, dense = layer.self_attn, layer.mlp
        self._index = index
        self._head_size = attention.head_dim
        self._scale = attention.scaling
        self._norm, self._dense_norm = Norm(layer.input_layernorm), Norm(layer.post_attention_layernorm)
        self._heads = _Projection.joined(attention.q_proj, attention.k_proj, attention.v_proj)
        self._output = _Projection.joined(attention.o_proj)
        self._gate_and_up = _Projection.joined(dense.gate_proj, dense.up_proj)
        self._down = _Projection.joined(dense.down_proj)
        self.projections = self._heads, self._output, self._gate_and_up, self._down
        self._query_heads = len(attention.q_proj.weight) // self._head_size
        self._turned_heads = self._query_heads + len(attention.k_proj.weight) // self._head_size
        self._head_norms = [Norm(attention.q_norm), Norm(attention.k_norm)] if hasattr(attention, "q_norm") else None

    def __call__(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, attend: Attend, kept: Callable[[Tensor], Tensor] = lambda rows: rows
    ) -> Tensor:
        """`hidden`, `[tokens, size]`, after the layer; it may be written to.

        Args:
            kept: selects the rows of which the result is wanted.
        """
        heads = self._heads(self._norm(hidden)).view(len(hidden), -1, self._head_size)
        turned = self._turned(heads.narrow(1, 0, self._turned_heads), cos, sin)
        queries, keys = turned.tensor_split([self._query_heads], 1)
        attended = attend(self._index, queries, keys, heads[:, self._turned_heads :], self._scale)
        hidden = self._output.added(kept(hidden), kept(attended).flatten(1))
        gate, up = self._gate_and_up(self._dense_norm(hidden)).chunk(2, 1)
        return self._down.added(hidden, F.silu(gate, inplace=True).mul_(up))

    def _turned(self, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Heads of queries and then of keys, turned by their positions."""
        if self._head_norms is not None:
            parts = heads.tensor_split([self._query_heads], 1)
            heads = torch.cat([norm(part) for norm, part in zip(self._head_norms, parts, strict=True)], 1)
        halves = heads.view(*heads.shape[:2], 2, -1)
        turned = halves * cos[:, :, None]
        turned.select(2, 0).addcmul_(halves.select(2, 1), sin, value=-1)
        turned.select(2, 1).addcmul_(halves.select(2, 0), sin)
        return turned.flatten(2)


class _Projection:
    """A projection of rows, `[rows, in]` to `[rows, out]`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias
        self._packed: PackedProduct | None = None

    @classmethod
    def joined(cls, *modules: Any) -> "_Projection":
        """Projections of the same rows as one, the results side by side; the modules' weights become parts of one tensor."""
        weight = modules[0].weight.detach() if len(modules) == 1 else torch.cat([module.weight.detach() for module in modules])
        if weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() <= FEW_WEIGHTS:
            weight = weight.t().contiguous().t()
        for module, part in zip(modules, weight.split([module.out_features for module in modules]), strict=True):
            module.weight = nn.Parameter(part, requires_grad=False)
        return cls(weight, _joined_biases(modules))

    def pack(self) -> Tensor | None:
        """As `Packable.pack`."""
        weight, self._packed = self._weight, PackedProduct.of(self._weight, self._bias)
        if self._packed is None:
            return None
        self._weight = weight.new_empty(0)
        return weight

    def __call__(self, rows: Tensor) -> Tensor:
        return F.linear(rows, self._weight, self._bias) if self._packed is None else self._packed(rows)

    def added(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """`hidden`, `[rows, out]`, plus the projected rows; it may be written to."""
        if self._packed is not None:
            return self._packed.added(hidden, rows)
        hidden.addmm_(rows, self._weight.t())
        return hidden if self._bias is None else hidden.add_(self._bias)


def _joined_biases(modules: Iterable[Any]) -> Tensor | None:
    """The biases of modules one after another, zeros of those that have none; None if none has one."""
    if all(module.bias is None for module in modules):
        return None
    return torch.cat([module.weight.new_zeros(module.out_features) if module.bias is None else module.bias.detach() for module in modules])


def _is_plain(model: PreTrainedModel) -> bool:
    """True if the model is made of the very classes of its family, as they are, and of numbers of one type on one device."""
    kind = model.config.model_type
    code = sys.modules[type(model).__module__]
    if kind not in FAMILIES or code.__name__ != f"transformers.models.{kind}.modeling_{kind}":
        return False
    known = {nn.ModuleList, nn.Embedding, nn.Linear, nn.SiLU, SiLUActivation} | {vars(code)[FAMILIES[kind] + part] for part in PARTS}
    if type(model) is not vars(code)[f"{FAMILIES[kind]}ForCausalLM"] or any(_is_changed(module, known) for module in model.modules()):
        return False
    weights = list(model.parameters())
    are_alike = all(type(each) is nn.Parameter and (each.dtype, each.device) == (model.dtype, model.device) for each in weights)
    decoder: Any = model.base_model
    # Embeddings that are cut to a norm are more than a table.
    is_table = decoder.embed_tokens.max_norm is None
    return are_alike and is_table and model.dtype.is_floating_point and decoder.rotary_emb.rope_type in ROTARY


def _is_changed(module: nn.Module, known: set[type]) -> bool:
    """True if a module is of none of the classes, or something else computes in its place or beside it."""
    return type(module) not in known or "forward" in vars(module) or bool(module._forward_hooks or module._forward_pre_hooks)
