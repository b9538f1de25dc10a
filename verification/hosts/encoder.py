"""The encoder of a T5: reads the prompts of requests, all tokens of each at once.

Invariant: a prompt's tokens attend to all tokens of their prompt and to no padding, so what is made of it does not depend on the prompts
beside it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from drafting.beam.model import EncoderBatch
from drafting.device import NEGATIVE_INFINITY, arange
from verification.hosts.encoder_decoder_layers import Dense, Projection, bias_tables, joined, lay_out
from verification.hosts.norm import Norm


class _Layer:
    """One layer of the encoder.

    Attributes:
        projections: all of its products with weights.
    """

    def __init__(self, block: Any) -> None:
        attention, dense = block.layer
        self._norm = Norm(attention.layer_norm)
        self._heads = Projection(joined(attention.SelfAttention, "qkv"))
        self._output = Projection(lay_out(attention.SelfAttention.o))
        self._dense = Dense(dense)
        self.projections = self._heads, self._output, *self._dense.projections

    def __call__(self, hidden: Tensor, biases: Tensor, shape: tuple[int, ...]) -> Tensor:
        """
        Args:
            hidden: `[requests * longest, size]`.
            biases: `[requests or 1, heads, longest, longest]`, of the precision in which attention is computed.
            shape: requests, longest, 3, heads and their size.
        """
        projected = self._heads(self._norm(hidden))
        query, key, value = projected.to(biases.dtype).view(shape).permute(2, 0, 3, 1, 4).unbind(0)
        # T5 scales its weights at the start instead of its scores.
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=biases, scale=1.0)
        hidden = self._output.added(hidden, attended.transpose(1, 2).reshape(len(hidden), -1).to(projected.dtype))
        return self._dense.added(hidden)


class Encoder:
    """The stack of layers.

    Attributes:
        projections: all products with weights.
    """

    def __init__(self, stack: Any, head_size: int) -> None:
        """`stack` is the encoder of transformers."""
        self._stack = stack
        self._norm = Norm(stack.final_layer_norm)
        self._head_size = head_size
        self._layers = [_Layer(block) for block in stack.block]
        self.projections = [projection for layer in self._layers for projection in layer.projections]
        attentions = [block.layer[0].SelfAttention for block in stack.block]
        # Keys farther away, on either side, have the biases of the farthest.
        self._farthest = int(attentions[0].relative_attention_max_distance)
        self._tables, self._table_indices = bias_tables(attentions, 2 * self._farthest + 1, self._farthest)

    def read(self, batch: EncoderBatch, is_exact: bool) -> Tensor:
        """The encoder's output for new prompts, `[tokens, size]` without padding; attention is computed in float64 if `is_exact`."""
        hidden: Tensor = self._stack.embed_tokens(batch.tokens.flatten())
        biases = self._biases(batch, torch.float64 if is_exact else hidden.dtype)
        shape = (*batch.tokens.shape, 3, biases[0].shape[1], self._head_size)
        for layer, table in zip(self._layers, self._table_indices, strict=True):
            hidden = layer(hidden, biases[table], shape)
        if len(batch.indices) < len(hidden):
            hidden = hidden.index_select(0, batch.indices)
        return self._norm(hidden)

    def _biases(self, batch: EncoderBatch, precision: torch.dtype) -> list[Tensor]:
        """`[requests or 1, heads, longest, longest]` of each table, to add to the scores of attention; -inf for padding."""
        requests, longest = batch.tokens.shape
        device = batch.tokens.device
        distances = arange(2 * longest - 1, device).sub(longest - 1).clamp_(-self._farthest, self._farthest).add_(self._farthest)
        # A query's biases are a stretch of those by distance; it begins the earlier the later the query stands.
        biases = [table.index_select(1, distances).unfold(1, longest, 1).flip(1)[None].to(precision) for table in self._tables]
        if len(batch.indices) == requests * longest:
            return biases
        padding = torch.full((requests * longest,), NEGATIVE_INFINITY, dtype=precision, device=device)
        rows = padding.index_fill_(0, batch.indices, 0.0).view(requests, 1, 1, longest)
        return [bias + rows for bias in biases]
