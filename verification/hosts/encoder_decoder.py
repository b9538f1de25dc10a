"""Encoder-decoder models of the T5 family on the transformers host (TIGER, GRID and LETTER are such models).

Invariant: the encoder reads a prompt once, all but its last token, with which the decoder's text and so the tree begins. A slot belongs to
a prompt or to a tree: a prompt's slots hold the keys and values of the decoder's cross-attention, those of root and nodes the keys and
values of its self-attention. Positions are relative, so a bias depends on how much deeper one node is than another, whatever else the tree
holds.

The encoder runs as it is. Of the decoder, transformers' modules compute what they hold weights for; their order is written out here,
because the library's own makes the keys and values of prompts, masks and biases of a plain text anew in each forward. What a family would
do in another order, the self-check finds.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel

from drafting.beam.model import AttentionLayout, EncoderBatch, TreeBatch
from verification.hosts.attention import tree_attention
from verification.hosts.layers import Layer
from verification.hosts.transformers import TransformersHost, allocate

ATTENTION = "atspeed_encoder"


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    padding: Tensor,
    is_exact: bool,
    scaling: float,
    dropout: float,
    position_bias: Tensor,
) -> tuple[Tensor, None]:
    """The encoder's attention, with the signature of transformers' attention functions; tensors are `[requests, heads, tokens, size]`.

    Arguments that are not known here are refused by Python. The one `padding` is `[requests, 1, 1, tokens]`, added to the scores: -inf
    where a row of tokens is padding.
    """
    precision = torch.float64 if is_exact else query.dtype
    query, key, value, mask = (part.to(precision) for part in (query, key, value, position_bias + padding))
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return attended.transpose(1, 2).to(padding.dtype), None


AttentionInterface.register(ATTENTION, _attend)


class EncoderDecoderHost(TransformersHost):
    """A model of the T5 family in this process, loaded by transformers."""

    attention = ATTENTION
    has_encoder = True

    def _host(self, model: PreTrainedModel, slots: int | None, kv_memory_gib: float) -> None:
        self.model = model.eval()
        self.is_exact = False
        config = model.config
        self._decoder: Any = model.get_decoder()
        own = [block.layer[0].SelfAttention for block in self._decoder.block]
        crossing = [block.layer[1].EncDecAttention for block in self._decoder.block]
        self._own_projections = [_joined(module, "qkv") for module in own]
        self._read_projections = [_joined(module, "kv") for module in crossing]
        # In most families the first layer's biases are those of all.
        self._tables = [_bias_table(module) for module in own if module.has_relative_attention_bias]
        self._table_indices = [min(index, len(self._tables) - 1) for index in range(len(own))]
        self._head_size = config.d_kv
        self._scale = config.d_model**-0.5 if _scales_output(config) else 1.0
        layers = [Layer((config.num_heads, 2 * config.d_kv), None)] * len(own)
        self._caches = allocate(layers, model.dtype, slots, kv_memory_gib, self.device)
        self.vocabulary_size = int(config.vocab_size)
        self.total_slots = len(self._caches[0])
        self._slot_positions = torch.zeros(self.total_slots, dtype=torch.int64, device=self.device)

    @torch.inference_mode()
    def score(self, batch: TreeBatch) -> Tensor:
        """Run one forward of the decoder, and before it of the encoder over new prompts; see `TreeModel`."""
        encoder = batch.encoder
        if encoder is None:
            raise ValueError("A forward of an encoder-decoder model is made with `has_encoder`.")
        states = self._encode(encoder) if len(encoder.slots) else None
        hidden = self._decoder.embed_tokens(batch.tokens)
        layouts = self._own_layouts(batch)
        for index, (block, cache) in enumerate(zip(self._decoder.block, self._caches, strict=True)):
            layer, crossing, dense = block.layer
            query, *new = self._heads(self._own_projections[index](layer.layer_norm(hidden)), 3)
            attended = self._attend_tree(query, new, cache, batch.slots, layouts[index])
            hidden = _finite(hidden + layer.SelfAttention.o(attended))
            (query,) = self._heads(crossing.EncDecAttention.q(crossing.layer_norm(hidden)), 1)
            read = () if states is None else self._heads(self._read_projections[index](states), 2)
            attended = self._attend_tree(query, read, cache, encoder.slots, encoder.attention)
            hidden = _finite(hidden + crossing.EncDecAttention.o(attended))
            hidden = _finite(dense(hidden))
        hidden = self._decoder.final_layer_norm(batch.at_outputs(hidden))
        logits: Tensor = self.model.get_output_embeddings()(hidden * self._scale)
        return logits

    def _encode(self, encoder: EncoderBatch) -> Tensor:
        """What the encoder makes of new prompts, `[tokens, size]` without padding."""
        padding = torch.full((encoder.tokens.numel(),), float("-inf"), dtype=self.model.dtype, device=self.device)
        padding.index_fill_(0, encoder.indices, 0.0)
        rows = padding.view(len(encoder.tokens), 1, 1, -1)
        states: Tensor = self.model.get_encoder()(input_ids=encoder.tokens, padding=rows, is_exact=self.is_exact).last_hidden_state
        return states.flatten(0, 1).index_select(0, encoder.indices)

    def _heads(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """The parts of a projection `[tokens, parts * heads * size]`, `[tokens, heads, size]` each."""
        return projected.view(len(projected), parts, -1, self._head_size).unbind(1)

    def _attend_tree(
        self, query: Tensor, new: Sequence[Tensor], cache: Tensor, slots: Tensor, layouts: Sequence[AttentionLayout]
    ) -> Tensor:
        """One attention of the decoder, `[tokens, heads * size]`; `new` are keys and values that the cache lacks, if there are any."""
        key, value = new or (None, None)
        # T5 scales its weights at the start instead of its scores.
        attended = tree_attention(query.double() if self.is_exact else query, key, value, cache, slots, layouts, 1.0)
        return attended.flatten(1).to(query.dtype)

    def _own_layouts(self, batch: TreeBatch) -> list[Sequence[AttentionLayout]]:
        """The layouts of each layer's self-attention, with its biases by depth."""
        self._slot_positions.index_copy_(0, batch.slots, batch.positions)
        farthest = self._tables[0].shape[1] - 1
        distances = []
        for layout in batch.attention:
            queries, keys = batch.positions[layout.tokens][layout.queries], self._slot_positions[layout.keys]
            distances.append((queries[:, :, None] - keys[:, None, :]).clamp(0, farthest))
        biased = [
            [
                replace(layout, biases=table[:, distance].transpose(0, 1))
                for layout, distance in zip(batch.attention, distances, strict=True)
            ]
            for table in self._tables
        ]
        return [biased[index] for index in self._table_indices]


class _SideBySide(nn.Module):
    """Several projections of the same rows, their results side by side."""

    def __init__(self, projections: Sequence[nn.Module]) -> None:
        super().__init__()
        self.projections = nn.ModuleList(projections)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.cat([projection(rows) for projection in self.projections], -1)


def _joined(attention: Any, names: str) -> nn.Module:
    """The projections of an attention that read the same rows as one; where they are plain, in one product of the same memory.

    It becomes a module of the model, like those that it stands for, so that `make_exact` finds it.
    """
    projections = [attention.get_submodule(name) for name in names]
    # Quantized weights have layouts of their own.
    if any(type(each) is not nn.Linear or type(each.weight) is not nn.Parameter for each in projections):
        joined: nn.Module = _SideBySide(projections)
    else:
        weight = torch.cat([each.weight.detach() for each in projections])
        for each, own in zip(projections, weight.tensor_split(len(projections)), strict=True):
            each.weight = nn.Parameter(own, requires_grad=False)
        joined = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        joined.weight = nn.Parameter(weight, requires_grad=False)
    attention.add_module("joined", joined)
    return joined


def _bias_table(attention: Any) -> Tensor:
    """`[heads, distances]`: what a query adds to its score of a key so many positions before it; farther ones are as the last."""
    farthest = attention.relative_attention_max_distance
    with torch.inference_mode():
        biases: Tensor = attention.compute_bias(1, farthest + 1, past_seen_tokens=farthest)
    return biases[0, :, 0].flip(-1).float()


def _scales_output(config: PretrainedConfig) -> bool:
    """True if the head reads scaled states: T5 says it in its configuration, umT5 always does, and mT5 never."""
    return bool(config.to_dict().get("scale_decoder_outputs", config.model_type == "umt5"))


def _finite(hidden: Tensor) -> Tensor:
    """The states within the range of float16, where T5's grow beyond; of another precision as they are."""
    if hidden.dtype != torch.float16:
        return hidden
    most = torch.finfo(torch.float16).max - 1000
    return hidden.clamp(-most, most)
