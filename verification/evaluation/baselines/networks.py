"""The networks of two sequential recommenders, SASRec and GRU4Rec, with their items' vectors as output weights.

Invariant: a position sees itself and what is before it alone, so rows are padded at their end and need no mask of padding.
"""

from typing import Any

import torch
from torch import nn

DIMS = 64
# Items of a history that a network sees: the newest.
LENGTH = 50


class SequenceNetwork(nn.Module):
    """From items, `[rows, length]` int64, to a vector for each position, `[rows, length, DIMS]`; the number of items is padding."""

    def __init__(self, items: int, dropout: float) -> None:
        super().__init__()
        self.items = items
        self.vectors = nn.Embedding(items + 1, DIMS, padding_idx=items)
        nn.init.normal_(self.vectors.weight, std=DIMS**-0.5)
        self.dropout = nn.Dropout(dropout)

    @property
    def outputs(self) -> torch.Tensor:
        """The vectors that items are scored with, `[items, DIMS]`."""
        return self.vectors.weight[: self.items]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The scores of all items, `[rows, items]`, of vectors `[rows, DIMS]`."""
        return hidden @ self.outputs.T


class SelfAttention(SequenceNetwork):
    """SASRec: two causal transformer layers with learned positions.

    Source: "Self-Attentive Sequential Recommendation" (Kang and McAuley, 2018), with full cross-entropy as its loss.
    """

    def __init__(self, items: int, dropout: float) -> None:
        super().__init__(items, dropout)
        self.positions = nn.Embedding(LENGTH, DIMS)
        nn.init.normal_(self.positions.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(DIMS, 2, 4 * DIMS, dropout, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(DIMS), enable_nested_tensor=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        length = rows.shape[1]
        inputs = self.vectors(rows) * DIMS**0.5 + self.positions.weight[:length]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        hidden: torch.Tensor = self.layers(self.dropout(inputs), mask=mask, is_causal=True)
        return hidden


class Recurrent(SequenceNetwork):
    """GRU4Rec: one layer of gated recurrent units.

    Source: "Session-based Recommendations with Recurrent Neural Networks" (Hidasi et al., 2016), with full cross-entropy as its loss.
    """

    def __init__(self, items: int, dropout: float) -> None:
        super().__init__(items, dropout)
        self.units = nn.GRU(DIMS, 2 * DIMS, batch_first=True)
        self.back = nn.Linear(2 * DIMS, DIMS)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden: Any = self.units(self.dropout(self.vectors(rows)))[0]
        found: torch.Tensor = self.back(self.dropout(hidden))
        return found


NETWORKS = {"sasrec": SelfAttention, "gru4rec": Recurrent}
