"""The contract of a model host: one forward over the nodes of token trees, and the tree attention in it.

Invariant: the layouts of a batch are the only thing that tells requests, beams and branches apart. A request is one row of keys, its prompt
and its tree nodes in order of allocation, which all its queries share.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class AttentionLayout:
    """Queries, keys and mask of some requests of a forward, padded to rows of one length.

    Attributes:
        queries: `[requests, queries]` int64, the tokens of these requests, counted among themselves; padding repeats one of them.
        indices: `[tokens]` int64, the index of each of these tokens in the flattened `queries`.
        keys: `[requests, columns]` int64 key/value slots; padding is any slot.
        mask: `[requests, 1, queries, columns]` bool, true where the query may attend to the key; no row is all false.
        tokens: `[tokens]` int64, these tokens' rows in the forward.
    """

    queries: Tensor
    indices: Tensor
    keys: Tensor
    mask: Tensor
    tokens: Tensor

    def __post_init__(self) -> None:
        expected = (self.queries.shape[0], 1, self.queries.shape[1], self.keys.shape[1])
        if tuple(self.mask.shape) != expected:
            raise ValueError(f"The mask must have shape {expected}, got {tuple(self.mask.shape)}.")

    @cached_property
    def bias(self) -> Tensor:
        """The mask as float32 numbers to add to attention scores, 0 or -inf; made once, because every layer adds the same."""
        return torch.zeros(self.mask.shape, device=self.mask.device).masked_fill_(~self.mask, float("-inf"))

    def to(self, device: torch.device) -> "AttentionLayout":
        """The same layout on a device."""
        parts = (self.queries, self.indices, self.keys, self.mask, self.tokens)
        return AttentionLayout(*(part.to(device) for part in parts))

    @property
    def is_dense(self) -> bool:
        """True if the tokens are exactly the queries in order, without padding."""
        return self.queries.numel() == self.indices.numel()


@dataclass(frozen=True)
class TreeBatch:
    """One forward over prompt tokens and tree nodes of many requests.

    Attributes:
        tokens: `[tokens]` int64 token ids.
        positions: `[tokens]` int64 position ids.
        slots: `[tokens]` int64, where keys and values are written.
        outputs: `[outputs]` int64, the rows whose next-token logits are wanted; None for all.
        attention: each token is in one of the layouts.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    outputs: Tensor | None
    attention: tuple[AttentionLayout, ...]

    def __post_init__(self) -> None:
        laid_out = sum(len(layout.indices) for layout in self.attention)
        if not self.tokens.shape == self.positions.shape == self.slots.shape == (laid_out,):
            raise ValueError("Tokens, positions, slots and attention indices must be rows of one length.")

    def at_outputs(self, rows: Tensor) -> Tensor:
        """Of `[tokens, ...]` rows those whose logits are wanted."""
        return rows if self.outputs is None else rows.index_select(0, self.outputs)

    def to(self, device: torch.device) -> "TreeBatch":
        """The same forward on a device; itself where it is there already."""
        if self.tokens.device == device:
            return self
        tokens, positions, slots = (part.to(device) for part in (self.tokens, self.positions, self.slots))
        outputs = None if self.outputs is None else self.outputs.to(device)
        return TreeBatch(tokens, positions, slots, outputs, tuple(layout.to(device) for layout in self.attention))


class TreeModel(Protocol):
    """A causal language model that scores the nodes of token trees: the target or the draft."""

    device: torch.device
    total_slots: int

    def score(self, batch: TreeBatch) -> Tensor:
        """Run one forward, keep keys and values in the tokens' slots, and return logits `[outputs, vocabulary]`."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...
