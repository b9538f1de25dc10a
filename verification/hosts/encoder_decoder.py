"""Encoder-decoder models of the T5 family on the transformers host (TIGER, GRID and LETTER are such models).

Invariant: the encoder reads a prompt once, all but its last token, with which the decoder's text and so the tree begins. A slot belongs to
a prompt or to a tree: a prompt's slots hold the keys and values of the decoder's cross-attention, those of root and nodes the keys and
values of its self-attention. Positions are relative, so a bias depends on how much deeper one node is than another, whatever else the tree
holds. The modelling code of transformers is unchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from drafting.beam.model import AttentionLayout, EncoderBatch, TreeBatch
from verification.hosts.attention import tree_attention
from verification.hosts.layers import Layer
from verification.hosts.transformers import TransformersHost, allocate

ATTENTION = "atspeed_encoder_decoder"


@dataclass(frozen=True)
class Forward:
    """One forward, as its layers need it.

    Attributes:
        batch: the decoder's part.
        encoder: the encoder's part.
        padding: `[requests, 1, 1, longest]`, added to the encoder's scores: -inf where a row of its tokens is padding.
        caches: per layer of the decoder, `[slots, heads, key size + value size]`.
        own: per layer of the decoder, layouts of its self-attention.
        own_indices, cross_indices: the layer of each attention module of the decoder.
        is_exact: True if attention is to be computed in float64.
    """

    batch: TreeBatch
    encoder: EncoderBatch
    padding: Tensor
    caches: list[Tensor]
    own: list[Sequence[AttentionLayout]]
    own_indices: dict[nn.Module, int]
    cross_indices: dict[nn.Module, int]
    is_exact: bool


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    forward: Forward,
    scaling: float,
    dropout: float,
    position_bias: Tensor,
) -> tuple[Tensor, None]:
    """All attention of a model, with the signature of transformers' attention functions; tensors are `[batch, heads, tokens, head size]`.

    What a layer hands over beside these arguments is refused by Python, because it is not known here.
    """
    own, cross, precision = forward.own_indices.get(module), forward.cross_indices.get(module), value.dtype
    if forward.is_exact:
        query = query.double()
    if own is None and cross is None:
        key, value, mask = (part.to(query.dtype) for part in (key, value, position_bias + forward.padding))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
        return attended.transpose(1, 2).to(precision), None
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    if own is not None:
        attended = tree_attention(query, key, value, forward.caches[own], forward.batch.slots, forward.own[own], scaling)
        return attended[None].to(precision), None
    assert cross is not None
    slots, layouts = forward.encoder.slots, forward.encoder.attention
    # Without new prompts, the decoder is given a row in place of them that is not kept.
    key, value = key[: len(slots)], value[: len(slots)]
    return tree_attention(query, key, value, forward.caches[cross], slots, layouts, scaling)[None].to(precision), None


AttentionInterface.register(ATTENTION, _attend)


class EncoderDecoderHost(TransformersHost):
    """A model of the T5 family in this process, loaded by transformers."""

    attention = ATTENTION
    has_encoder = True

    def _host(self, model: PreTrainedModel, slots: int | None, kv_memory_gib: float) -> None:
        self.model = model.eval()
        self.is_exact = False
        blocks: Any = model.get_decoder().block
        own = [block.layer[0].SelfAttention for block in blocks]
        self._own_indices = {module: index for index, module in enumerate(own)}
        self._cross_indices = {block.layer[1].EncDecAttention: index for index, block in enumerate(blocks)}
        # In most families the first layer's biases are those of all.
        self._tables = [_bias_table(module) for module in own if module.has_relative_attention_bias]
        self._table_indices = [min(index, len(self._tables) - 1) for index in range(len(own))]
        config = model.config
        layers = [Layer((config.num_heads, 2 * config.d_kv), None)] * len(own)
        self._caches = allocate(layers, model.dtype, slots, kv_memory_gib, self.device)
        self._nothing_new = torch.zeros(1, 1, config.d_model, dtype=model.dtype, device=self.device)
        self.vocabulary_size = int(config.vocab_size)
        self.total_slots = len(self._caches[0])
        self._slot_positions = torch.zeros(self.total_slots, dtype=torch.int64, device=self.device)

    @torch.inference_mode()
    def score(self, batch: TreeBatch) -> Tensor:
        """Run one forward of the decoder, and before it of the encoder over new prompts; see `TreeModel`."""
        encoder = batch.encoder
        if encoder is None:
            raise ValueError("A forward of an encoder-decoder model is made with `has_encoder`.")
        padding = self._nothing_new.new_full((encoder.tokens.numel(),), float("-inf")).index_fill_(0, encoder.indices, 0.0)
        layouts = self._own_layouts(batch)
        forward = Forward(
            batch,
            encoder,
            padding.view(len(encoder.tokens), 1, 1, -1) if len(padding) else padding,
            self._caches,
            layouts,
            self._own_indices,
            self._cross_indices,
            self.is_exact,
        )
        states = self._encode(encoder, forward) if len(encoder.slots) else self._nothing_new
        logits: Tensor = self.model(
            encoder_outputs=(states,), decoder_input_ids=batch.tokens[None], use_cache=False, forward=forward
        ).logits
        return batch.at_outputs(logits[0])

    def _encode(self, encoder: EncoderBatch, forward: Forward) -> Tensor:
        """What the encoder makes of new prompts, `[1, tokens, size]` without padding."""
        states: Tensor = self.model.get_encoder()(input_ids=encoder.tokens, forward=forward).last_hidden_state
        return states.flatten(0, 1).index_select(0, encoder.indices)[None]

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


def _bias_table(attention: Any) -> Tensor:
    """`[heads, distances]`: what a query adds to its score of a key so many positions before it; farther ones are as the last."""
    farthest = attention.relative_attention_max_distance
    with torch.inference_mode():
        biases: Tensor = attention.compute_bias(1, farthest + 1, past_seen_tokens=farthest)
    return biases[0, :, 0].flip(-1).float()
