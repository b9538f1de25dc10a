"""Tree attention: a token attends to the prompt of its request, to its ancestors in the token tree and to itself.

Invariant: only the mask separates requests, beams and branches, so requests in any state share one call (continuous batching). The keys of
a prompt are gathered once per request, not once per beam. The PyTorch operations here are the reference and run without Triton; on a GPU,
`verification.hosts.tree_kernel` computes the same in one kernel. What a layer asks for beyond plain attention (a soft cap, sinks, a reach,
biases by position) is an argument here or in its layouts, or the layer is refused: nothing is left out in silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from drafting.beam.model import AttentionLayout, TreeBatch

HAS_TRITON = find_spec("triton") is not None


@dataclass(frozen=True)
class Reach:
    """How far back a layer attends, in positions.

    Attributes:
        size: number of positions of the window, the token's own among them, or of a chunk.
        chunked: True if the token attends to its own chunk of the sequence, False if to the last positions before it.
    """

    size: int
    chunked: bool = False

    def allows(self, query: Tensor, key: Tensor) -> Tensor:
        """True where a token at position `query` may attend to one at position `key` before it; the shapes are broadcast."""
        if self.chunked:
            return query.div(self.size, rounding_mode="floor") == key.div(self.size, rounding_mode="floor")
        return query - key < self.size


@dataclass(frozen=True)
class Alibi:
    """Biases by position (ALiBi): a head's score falls by its slope for each position between query and key.

    Attributes:
        slopes: one of each head.
        scale: factor of the biases.
        coarse: True if slopes are multiplied by the positions of keys in bfloat16, whatever the model's precision.
    """

    slopes: tuple[float, ...]
    scale: float = 1.0
    coarse: bool = False

    def biases(self, slopes: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Float32 biases of the scores of tokens at positions `query` for those at `key`; the shapes, slopes' too, are broadcast."""
        added = slopes.bfloat16() * key if self.coarse else slopes * (key - query)
        return added.float() * self.scale


@dataclass(frozen=True)
class View:
    """What the queries of a layer see of the tokens before them.

    Attributes:
        reach: how far back they attend; None for everything.
        alibi: None for no biases by position.
    """

    reach: Reach | None = None
    alibi: Alibi | None = None


class LayerLayouts:
    """The layouts of a forward for each layer of a model, made once for all layers of one view."""

    def __init__(self, views: Sequence[View], slots: int, device: torch.device) -> None:
        """
        Args:
            views: that of each layer.
            slots: number of key/value slots.
        """
        self._views = views
        self._slot_positions = torch.zeros(slots, dtype=torch.int64, device=device)
        # Made here, because a recorded forward copies nothing from the host.
        self._slopes = {
            view.alibi: torch.tensor(view.alibi.slopes, device=device)[:, None, None] for view in views if view.alibi is not None
        }

    def of(self, batch: TreeBatch) -> list[Sequence[AttentionLayout]]:
        """The layouts of each layer in a forward, after all forwards that wrote to the slots that it reads."""
        layouts: dict[View, Sequence[AttentionLayout]] = {View(): batch.attention}
        if any(view not in layouts for view in self._views):
            self._slot_positions.index_copy_(0, batch.slots, batch.positions)
        for view in self._views:
            if view not in layouts:
                layouts[view] = [self._seen(layout, batch.positions, view) for layout in batch.attention]
        return [layouts[view] for view in self._views]

    def _seen(self, layout: AttentionLayout, positions: Tensor, view: View) -> AttentionLayout:
        queries = positions[layout.tokens][layout.queries][:, None, :, None]
        keys = self._slot_positions[layout.keys][:, None, None, :]
        mask = layout.mask if view.reach is None else layout.mask & view.reach.allows(queries, keys)
        biases = None if view.alibi is None else view.alibi.biases(self._slopes[view.alibi], queries, keys)
        if biases is not None:
            biases = biases.expand(*biases.shape[:2], *mask.shape[2:]).contiguous()
        return replace(layout, mask=mask, biases=biases)


def tree_attention(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    cache: Tensor,
    slots: Tensor,
    layouts: Sequence[AttentionLayout],
    scale: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Write the keys and values of a forward to the cache, then attend; a request may read what another computes in the same forward.

    Args:
        query: `[tokens, heads, head size]`. If it is float64, keys and values are read as float64 too, and the attention is computed in it.
        key, value: `[tokens, key/value heads, head size]`; grouped-query attention if there are fewer of them than heads. Values may be of
            another size than keys. None if another layer has written them to the same cache.
        cache: `[slots, key/value heads, key size + value size]`, keys beside values so that one gather reads both.
        slots: `[tokens]` int64, slots of the keys and values of this forward.
        layouts: the columns that each query may attend to.
        scale: factor of the scores.
        softcap: limit that scores approach by a hyperbolic tangent.
        sinks: `[heads]`, the score of a further column for each head, whose value is zero.

    Returns:
        `[tokens, heads, value size]`.
    """
    if key is not None and value is not None:
        cache.index_copy_(0, slots, torch.cat([key, value], dim=-1))
    if len(layouts) == 1:
        return _attend(query, cache, layouts[0], scale, softcap, sinks)
    attended = torch.empty((*query.shape[:2], cache.shape[2] - query.shape[2]), dtype=query.dtype, device=query.device)
    for layout in layouts:
        rows = query.index_select(0, layout.tokens)
        attended.index_copy_(0, layout.tokens, _attend(rows, cache, layout, scale, softcap, sinks))
    return attended


def _attend(query: Tensor, cache: Tensor, layout: AttentionLayout, scale: float, softcap: float | None, sinks: Tensor | None) -> Tensor:
    """Attend to keys and values in the cache; the queries are those of one layout."""
    if query.is_cuda and HAS_TRITON and query.dtype != torch.float64:
        from verification.hosts.tree_kernel import attend

        return attend(query, cache, layout, scale, softcap, sinks)
    keys, values = _read(cache, layout).to(query.dtype).transpose(1, 2).tensor_split([query.shape[2]], dim=-1)
    queries = (query.view(*layout.queries.shape, *query.shape[1:]) if layout.is_dense else query[layout.queries]).transpose(1, 2)
    if softcap is None and sinks is None:
        grouped = query.shape[1] != cache.shape[1]
        bias = layout.bias.to(query.dtype)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=scale, enable_gqa=grouped)
    else:
        attended = _attend_written_out(queries, keys, values, layout.bias, scale, softcap, sinks)
    attended = attended.transpose(1, 2).reshape(-1, query.shape[1], values.shape[3])
    return attended if layout.is_dense else attended[layout.indices]


def _read(cache: Tensor, layout: AttentionLayout) -> Tensor:
    """The keys and values of a layout's columns, `[requests, columns, key/value heads, size]`; in place where they lie side by side."""
    requests, columns = layout.keys.shape
    if layout.first is not None:
        return cache.narrow(0, layout.first, columns)[None]
    return cache.index_select(0, layout.keys.flatten()).view(requests, columns, *cache.shape[1:])


def _attend_written_out(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scale: float, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """Attention with caps and sinks, the softmax in float32 at least; all tensors are `[requests, heads, rows, size]`."""
    group = queries.shape[1] // keys.shape[1]
    keys, values = (states.repeat_interleave(group, 1) for states in (keys, values))
    precision = torch.promote_types(queries.dtype, torch.float32)
    scores = (queries @ keys.transpose(2, 3)).to(precision) * scale
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    scores = scores + bias
    if sinks is not None:
        scores = torch.cat([scores, sinks.to(precision)[None, :, None, None].expand(*scores.shape[:3], 1)], -1)
    weights = scores.softmax(-1)[..., : keys.shape[2]]
    return weights.to(values.dtype) @ values
