"""The keys and values of a decoder's attention, as the layers of one forward write and read them.

Invariant: what a token attends to is said by layouts alone. A request without company, computed in float32 on a CPU, whose slots follow
each other, is read where it lies, by views that are made once for all layers: a small model's time is spent on the number of operations.
All others go through `tree_attention`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from drafting.beam.model import AttentionLayout
from verification.hosts.attention import tree_attention

# T5 scales its weights at the start instead of its scores.
SCALE = 1.0


class Columns:
    """What the tokens of one forward attend to, in all layers: their trees, or their prompts."""

    def __init__(self, caches: Tensor, slots: Tensor, layouts: Sequence[Sequence[AttentionLayout]], is_exact: bool) -> None:
        """
        Args:
            caches: `[layers, slots, heads, 2, size]`, keys and values.
            slots: `[new]` int64, where keys and values are written.
            layouts: those of each layer.
            is_exact: True if attention is computed in float64.
        """
        self._caches = caches
        self._slots = slots
        self._layouts = layouts
        self._is_exact = is_exact
        self._new: Sequence[Tensor] = ()
        layout, *others = layouts[0]
        self._is_in_place = not (
            others or layout.first is None or layout.further or is_exact or caches.is_cuda or caches.dtype != torch.float32
        )
        if self._is_in_place and layout.first is not None:
            first, columns = layout.first, layout.keys.shape[1]
            places = caches.narrow(1, first, columns)
            keys, values = places.transpose(1, 2)[:, None].unbind(4)
            self._keys, self._values = keys.unbind(0), values.unbind(0)
            before = columns - len(slots)
            # A draft is also asked for others than the last.
            if len(slots) and torch.equal(slots, layout.keys[0, before:]):
                self._new = places[:, None, before:].transpose(3, 4).unbind(0)

    def write(self, layer: int, new: Tensor) -> None:
        """Write new keys and values, `[1, new, 2, heads, size]`."""
        if self._new:
            self._new[layer].copy_(new)
        else:
            self._caches[layer].index_copy_(0, self._slots, new[0].transpose(1, 2))

    def attend(self, layer: int, queries: Tensor) -> Tensor:
        """`[tokens, heads * size]` for queries `[1, tokens, heads, size]`."""
        layouts = self._layouts[layer]
        if self._is_in_place:
            bias = None if layouts[0].sees_all else layouts[0].bias
            keys, values = self._keys[layer], self._values[layer]
            attended = F.scaled_dot_product_attention(queries.transpose(1, 2), keys, values, attn_mask=bias, scale=SCALE)
            return attended.transpose(1, 2).reshape(queries.shape[1], -1)
        query = queries[0]
        precise = query.double() if self._is_exact else query
        attended = tree_attention(precise, None, None, self._caches[layer].flatten(2), self._slots, layouts, SCALE)
        return attended.flatten(1).to(query.dtype)
