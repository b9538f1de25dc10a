"""Encoder-decoder models of the T5 family on the transformers host (TIGER, GRID and LETTER are such models).

Invariant: the encoder reads a prompt once, all but its last token, with which the decoder's text and so the tree begins. A slot belongs to
a prompt or to a tree: a prompt's slots hold the keys and values of the decoder's cross-attention, those of root and nodes the keys and
values of its self-attention. Positions are relative, so a bias depends on how much deeper one node is than another, whatever else the tree
holds.

Transformers' modules compute what they hold weights for; their order is written out here, because the library's own makes the keys and
values of prompts, masks and biases of a plain text anew in each forward. What a family would do in another order, the self-check finds.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from drafting.beam.model import AttentionLayout, EncoderBatch, TreeBatch
from verification.hosts.attention import tree_attention
from verification.hosts.encoder import Encoder
from verification.hosts.encoder_decoder_layers import Dense, Projection, bias_tables, joined, lay_out, normalised
from verification.hosts.layers import Layer
from verification.hosts.transformers import TransformersHost, allocate


class _Layer:
    """One layer of the decoder: attention to the tree, attention to the prompt, and the dense part."""

    def __init__(self, block: Any, cache: Tensor, head_size: int) -> None:
        own, crossing, dense = block.layer
        self._own_norm, self._crossing_norm = own.layer_norm, crossing.layer_norm
        self._own_heads = Projection(joined(own.SelfAttention, "qkv"))
        self._own_output = Projection(lay_out(own.SelfAttention.o))
        self._crossing_heads = Projection(lay_out(crossing.EncDecAttention.q))
        self._prompt_heads = Projection(joined(crossing.EncDecAttention, "kv"))
        self._crossing_output = Projection(lay_out(crossing.EncDecAttention.o))
        self._dense = Dense(dense)
        self._cache = cache
        self._head_size = head_size

    def to_tree(self, hidden: Tensor, slots: Tensor, layouts: Sequence[AttentionLayout], is_exact: bool) -> Tensor:
        """`hidden`, `[tokens, size]`, after the tokens have attended to the tree and written their keys and values to `slots`."""
        query, *new = self._heads(self._own_heads(normalised(self._own_norm, hidden)), 3)
        return self._own_output.added(hidden, self._attend(query, new, slots, layouts, is_exact))

    def to_prompt(self, hidden: Tensor, states: Tensor | None, encoder: EncoderBatch, is_exact: bool) -> Tensor:
        """`hidden` after the tokens have attended to prompts; `states` is what the encoder has made of new ones, `[tokens, size]`."""
        (query,) = self._heads(self._crossing_heads(normalised(self._crossing_norm, hidden)), 1)
        new = () if states is None else self._heads(self._prompt_heads(states), 2)
        return self._crossing_output.added(hidden, self._attend(query, new, encoder.slots, encoder.attention, is_exact))

    def dense(self, hidden: Tensor) -> Tensor:
        """`hidden` after the dense part."""
        return self._dense.added(hidden)

    def _heads(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """The parts of a projection `[tokens, parts * heads * size]`, `[tokens, heads, size]` each."""
        return projected.view(len(projected), parts, -1, self._head_size).unbind(1)

    def _attend(self, query: Tensor, new: Sequence[Tensor], slots: Tensor, layouts: Sequence[AttentionLayout], is_exact: bool) -> Tensor:
        """One attention, `[tokens, heads * size]`; `new` are keys and values that the cache lacks, if there are any."""
        key, value = new or (None, None)
        # T5 scales its weights at the start instead of its scores.
        attended = tree_attention(query.double() if is_exact else query, key, value, self._cache, slots, layouts, 1.0)
        return attended.flatten(1).to(query.dtype)


class EncoderDecoderHost(TransformersHost):
    """A model of the T5 family in this process, loaded by transformers."""

    # The library's own attention never runs here.
    attention = "eager"
    has_encoder = True

    def _host(self, model: PreTrainedModel, slots: int | None, kv_memory_gib: float) -> None:
        self.model = model.eval()
        self.is_exact = False
        config = model.config
        self._decoder: Any = model.get_decoder()
        self._encoder = Encoder(model.get_encoder(), config.d_kv)
        shapes = [Layer((config.num_heads, 2 * config.d_kv), None)] * len(self._decoder.block)
        self._caches = allocate(shapes, model.dtype, slots, kv_memory_gib, self.device)
        self._layers = [_Layer(block, cache, config.d_kv) for block, cache in zip(self._decoder.block, self._caches, strict=True)]
        own = [block.layer[0].SelfAttention for block in self._decoder.block]
        farthest = int(own[0].relative_attention_max_distance)
        tables, self._table_indices = bias_tables(own, farthest + 1, farthest)
        # `[heads, distances]`, from 0 on; farther ones are as the last.
        self._tables = [table.flip(1) for table in tables]
        self._scale = config.d_model**-0.5 if _scales_output(config) else 1.0
        self.vocabulary_size = int(config.vocab_size)
        self.total_slots = len(self._caches[0])
        self._slot_positions = torch.zeros(self.total_slots, dtype=torch.int64, device=self.device)

    @torch.inference_mode()
    def score(self, batch: TreeBatch) -> Tensor:
        """Run one forward of the decoder, and before it of the encoder over new prompts; see `TreeModel`."""
        encoder = batch.encoder
        if encoder is None:
            raise ValueError("A forward of an encoder-decoder model is made with `has_encoder`.")
        states = self._encoder.read(encoder, self.is_exact) if len(encoder.slots) else None
        hidden: Tensor = self._decoder.embed_tokens(batch.tokens)
        for layer, layouts in zip(self._layers, self._own_layouts(batch), strict=True):
            hidden = layer.to_tree(hidden, batch.slots, layouts, self.is_exact)
            hidden = layer.to_prompt(hidden, states, encoder, self.is_exact)
            hidden = layer.dense(hidden)
        hidden = normalised(self._decoder.final_layer_norm, batch.at_outputs(hidden))
        logits: Tensor = self.model.get_output_embeddings()(hidden * self._scale)
        return logits

    def close(self) -> None:
        self._layers.clear()
        super().close()

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


def _scales_output(config: PretrainedConfig) -> bool:
    """True if the head reads scaled states: T5 says it in its configuration, umT5 always does, and mT5 never."""
    return bool(config.to_dict().get("scale_decoder_outputs", config.model_type == "umt5"))
