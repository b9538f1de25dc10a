"""Encoder-decoder models of the T5 family on the transformers host (TIGER, GRID and LETTER are such models).

Invariant: the encoder reads a prompt once, all but its last token, with which the decoder's text and so the tree begins. A slot belongs to
a prompt or to a tree: a prompt's slots hold the keys and values of the decoder's cross-attention, those of root and nodes the keys and
values of its self-attention. Positions are relative, so a bias depends on how much deeper one node is than another, whatever else the tree
holds.

Transformers' modules compute what they hold weights for; their order is written out here, because the library's own makes the keys and
values of prompts, masks and biases of a plain text anew in each forward. What a family would do in another order, the self-check finds.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from drafting.beam.model import AttentionLayout, TreeBatch
from drafting.beam.rows import Rows
from verification.hosts.checkpoint import slot_count
from verification.hosts.encoder import Encoder
from verification.hosts.encoder_decoder_columns import Columns
from verification.hosts.encoder_decoder_layers import Dense, Projection, bias_tables, joined, lay_out
from verification.hosts.head import Treatment, plain_head
from verification.hosts.norm import Norm
from verification.hosts.transformers import TransformersHost


class _Layer:
    """One layer of the decoder: attention to the tree, attention to the prompt, and the dense part.

    Attributes:
        projections: all of its products with weights.
    """

    def __init__(self, index: int, block: Any, head_size: int) -> None:
        own, crossing, dense = block.layer
        self._own_norm, self._crossing_norm = Norm(own.layer_norm), Norm(crossing.layer_norm)
        self._own_heads = Projection(joined(own.SelfAttention, "qkv"))
        self._own_output = Projection(lay_out(own.SelfAttention.o))
        self._crossing_heads = Projection(lay_out(crossing.EncDecAttention.q))
        self._prompt_heads = Projection(joined(crossing.EncDecAttention, "kv"))
        self._crossing_output = Projection(lay_out(crossing.EncDecAttention.o))
        self._dense = Dense(dense)
        own = self._own_heads, self._own_output, self._crossing_heads, self._prompt_heads, self._crossing_output
        self.projections = (*own, *self._dense.projections)
        self._index = index
        self._head_size = head_size

    def to_tree(self, hidden: Tensor, tree: Columns) -> Tensor:
        """`hidden`, `[tokens, size]`, after the tokens have attended to the tree, and written their keys and values there."""
        heads = self._own_heads(self._own_norm(hidden)).view(1, hidden.shape[0], 3, -1, self._head_size)
        tree.write(self._index, heads.narrow(2, 1, 2))
        return self._own_output.added(hidden, tree.attend(self._index, heads.select(2, 0)))

    def to_prompt(self, hidden: Tensor, states: Tensor | None, prompt: Columns) -> Tensor:
        """`hidden` after the tokens have attended to prompts; `states` is what the encoder has made of new ones, `[tokens, size]`."""
        if states is not None:
            prompt.write(self._index, self._prompt_heads(states).view(1, states.shape[0], 2, -1, self._head_size))
        queries = self._crossing_heads(self._crossing_norm(hidden)).view(1, hidden.shape[0], -1, self._head_size)
        return self._crossing_output.added(hidden, prompt.attend(self._index, queries))

    def dense(self, hidden: Tensor) -> Tensor:
        """`hidden` after the dense part."""
        return self._dense.added(hidden)


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
        shape = config.num_heads, 2, config.d_kv
        layers = len(self._decoder.block)
        self.total_slots = slots or slot_count(layers * math.prod(shape) * model.dtype.itemsize, kv_memory_gib)
        # All layers in one tensor; masked slots must hold finite numbers too.
        self._caches = [torch.zeros(layers, self.total_slots, *shape, dtype=model.dtype, device=self.device)]
        self._layers = [_Layer(index, block, config.d_kv) for index, block in enumerate(self._decoder.block)]
        self._norm = Norm(self._decoder.final_layer_norm)
        own = [block.layer[0].SelfAttention for block in self._decoder.block]
        farthest = int(own[0].relative_attention_max_distance)
        tables, self._table_indices = bias_tables(own, farthest + 1, farthest)
        # `[heads, distances]`, from 0 on; farther ones are as the last.
        self._tables = [table.flip(1) for table in tables]
        self._scale = config.d_model**-0.5 if _scales_output(config) else 1.0
        self.head = plain_head(model.get_output_embeddings(), Treatment())
        self.vocabulary_size = int(config.vocab_size)
        self._slot_positions = torch.zeros(self.total_slots, dtype=torch.int64, device=self.device)

    @torch.inference_mode()
    def score(self, batch: TreeBatch) -> Rows:
        """Run one forward of the decoder, and before it of the encoder over new prompts; see `TreeModel`."""
        encoder = batch.encoder
        if encoder is None:
            raise ValueError("A forward of an encoder-decoder model is made with `has_encoder`.")
        states = self._encoder.read(encoder, self.is_exact) if len(encoder.slots) else None
        (caches,) = self._caches
        tree = Columns(caches, batch.slots, self._own_layouts(batch), self.is_exact)
        prompt = Columns(caches, encoder.slots, [encoder.attention] * len(self._layers), self.is_exact)
        hidden: Tensor = self._decoder.embed_tokens(batch.tokens)
        for layer in self._layers:
            hidden = layer.to_tree(hidden, tree)
            hidden = layer.to_prompt(hidden, states, prompt)
            hidden = layer.dense(hidden)
        hidden = self._norm(batch.at_outputs(hidden))
        states = hidden * self._scale
        return Rows.of(self.model.get_output_embeddings()(states)) if self.head is None else Rows(states, self.head)

    def compute_by_modules(self) -> None:
        super().compute_by_modules()
        for projection in self._projections:
            projection.leave_to_module()

    @property
    def _projections(self) -> list[Projection]:
        return [*self._encoder.projections, *(projection for layer in self._layers for projection in layer.projections)]

    def close(self) -> None:
        self._layers.clear()
        super().close()

    def _own_layouts(self, batch: TreeBatch) -> list[Sequence[AttentionLayout]]:
        """The layouts of each layer's self-attention, with its biases by depth."""
        self._slot_positions.index_copy_(0, batch.slots, batch.positions)
        distances = []
        for layout in batch.attention:
            in_order = len(batch.attention) == 1 and layout.is_dense
            positions = batch.positions if in_order else batch.positions.take(layout.tokens)
            distances.append([self._distances(part, positions) for part in (layout, layout.further) if part is not None])
        biased = [
            [_biased(layout, table, between) for layout, between in zip(batch.attention, distances, strict=True)] for table in self._tables
        ]
        return [biased[index] for index in self._table_indices]

    def _distances(self, layout: AttentionLayout, positions: Tensor) -> Tensor:
        """`[requests, queries, columns]`, positions from each key to each query, for the positions of the layout's tokens."""
        queries = positions.view_as(layout.queries) if layout.is_dense else positions.take(layout.queries)
        keys = self._slot_positions.take(layout.keys)
        return (queries[:, :, None] - keys[:, None, :]).clamp_(0, self._tables[0].shape[1] - 1)


def _biased(layout: AttentionLayout, table: Tensor, distances: Sequence[Tensor]) -> AttentionLayout:
    """A layout, and what further keys it has, with the biases of a table for the distances in each."""
    own, *others = distances
    further = None if layout.further is None else _biased(layout.further, table, others)
    return replace(layout, biases=_looked_up(table, own), sees_all=False, further=further)


def _looked_up(table: Tensor, distances: Tensor) -> Tensor:
    """`[requests, heads, queries, columns]` of a table `[heads, distances]`, for distances without heads."""
    return table.index_select(1, distances.flatten()).view(len(table), *distances.shape).transpose(0, 1)


def _scales_output(config: PretrainedConfig) -> bool:
    """True if the head reads scaled states: T5 says it in its configuration, umT5 always does, and mT5 never."""
    return bool(config.to_dict().get("scale_decoder_outputs", config.model_type == "umt5"))
