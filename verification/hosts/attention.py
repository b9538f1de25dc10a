"""Tree attention: a token attends to the prompt of its request, to its ancestors in the token tree and to itself.

Invariant: only the mask separates requests, beams and branches, so requests in any state share one call (continuous batching). The keys of
a prompt are gathered once per request, not once per beam. The PyTorch operations here are the reference and run without Triton; on a GPU,
`verification.hosts.tree_kernel` computes the same in one kernel. What a layer asks for beyond plain attention (a soft cap, sinks, a reach,
biases by position) is an argument here or in its layouts, or the layer is refused: nothing is left out in silence.

A wide tree is attended to in two parts (`AttentionLayout.further`), each with a softmax of its own; they are merged by the logarithms of
the sums of their exponentials, which gives the softmax over both.
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
    """The tokens that the queries of a layer attend to, and their biases by position.

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
        """`layout` as seen by a view, with the positions of all tokens of the forward."""
        return self._seen_part(layout, positions[layout.tokens], view)

    def _seen_part(self, layout: AttentionLayout, positions: Tensor, view: View) -> AttentionLayout:
        queries = positions[layout.queries][:, None, :, None]
        keys = self._slot_positions[layout.keys][:, None, None, :]
        mask = layout.mask if view.reach is None else layout.mask & view.reach.allows(queries, keys)
        biases = None if view.alibi is None else view.alibi.biases(self._slopes[view.alibi], queries, keys)
        if biases is not None:
            biases = biases.expand(*biases.shape[:2], *mask.shape[2:]).contiguous()
        further = None if layout.further is None else self._seen_part(layout.further, positions, view)
        return replace(layout, mask=mask, biases=biases, sees_all=False, further=further)


def tree_attention(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    cache: Tensor,
    slots: Tensor | slice,
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
        slots: `[tokens]` int64, or the range of them, slots of the keys and values of this forward; see `TreeBatch.written`.
        layouts: the columns that each query may attend to.
        scale: factor of the scores.
        softcap: limit that scores approach by a hyperbolic tangent.
        sinks: `[heads]`, the score of a further column for each head, whose value is zero.

    Returns:
        `[tokens, heads, value size]`.
    """
    if key is not None and value is not None:
        if isinstance(slots, slice):
            torch.cat([key, value], dim=-1, out=cache[slots])
        else:
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
    if layout.further is None and softcap is None and sinks is None:
        queries, keys, values = _parts(query, cache, layout)
        grouped = query.shape[1] != cache.shape[1]
        bias = layout.bias.to(query.dtype)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=scale, enable_gqa=grouped)
        return _in_rows(attended, layout)
    attended, norm = _attend_part(query, cache, layout, scale, softcap)
    if layout.further is not None:
        further, its_norm = _attend_part(query, cache, layout.further, scale, softcap)
        # A part's share of the sum of all exponentials; a part of which nothing is seen has none.
        attended, norm = torch.lerp(further, attended, (norm - its_norm).sigmoid()), torch.logaddexp(norm, its_norm)
    if sinks is not None:
        # A sink adds to the divisor alone, which is the exponential of the norm.
        attended = attended * (norm - sinks[:, None].to(norm.dtype)).sigmoid()
    return attended.to(query.dtype)


def _parts(query: Tensor, cache: Tensor, layout: AttentionLayout) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a layout, `[requests, heads, rows, size]` each."""
    keys, values = _read(cache, layout).to(query.dtype).transpose(1, 2).tensor_split([query.shape[2]], dim=-1)
    queries = query.view(*layout.queries.shape, *query.shape[1:]) if layout.is_dense else query[layout.queries]
    return queries.transpose(1, 2), keys, values


def _in_rows(attended: Tensor, layout: AttentionLayout) -> Tensor:
    """`[requests, heads, queries, size]` as the tokens of a layout, `[tokens, heads, size]`."""
    attended = attended.transpose(1, 2).flatten(0, 1)
    return attended if layout.is_dense else attended[layout.indices]


def _read(cache: Tensor, layout: AttentionLayout) -> Tensor:
    """The keys and values of a layout's columns, `[requests, columns, key/value heads, size]`; in place where they lie side by side."""
    requests, columns = layout.keys.shape
    if layout.first is not None:
        return cache.narrow(0, layout.first, columns)[None]
    return cache.index_select(0, layout.keys.flatten()).view(requests, columns, *cache.shape[1:])


def _attend_part(query: Tensor, cache: Tensor, layout: AttentionLayout, scale: float, softcap: float | None) -> tuple[Tensor, Tensor]:
    """Attend to the keys of a layout alone.

    Returns:
        `[tokens, heads, value size]` and `[tokens, heads, 1]`, the logarithms of the sums of the exponentials of the scores; float32 at
        least.
    """
    queries, keys, values = _parts(query, cache, layout)
    requests, heads, rows, size = queries.shape
    # The heads that share keys are rows of one product.
    grouped = queries.reshape(requests, keys.shape[1], -1, size)
    bias = None if layout.sees_all else _grouped(layout.bias, keys.shape[1], heads)
    if bias is not None:
        # A window may hide all of these keys from a query: finite, its sum is next to nothing beside the other part's.
        bias = bias.to(query.dtype).clamp(min=torch.finfo(query.dtype).min / 2)
    if softcap is None and values.shape[3] == size and query.device.type == "cpu":
        attended, norm = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(grouped, keys, values, attn_mask=bias, scale=scale)
    else:
        attended, norm = _attend_written_out(grouped, keys, values, bias, scale, softcap)
    attended, norm = attended.reshape(requests, heads, rows, -1), norm.reshape(requests, heads, rows, 1)
    precision = torch.promote_types(query.dtype, torch.float32)
    return _in_rows(attended, layout).to(precision), _in_rows(norm, layout).to(precision)


def _grouped(bias: Tensor, key_value_heads: int, heads: int) -> Tensor:
    """Biases `[requests, heads or 1, rows, columns]` for the rows of all heads that share keys."""
    group = heads // key_value_heads
    if bias.shape[1] == 1:
        return bias if group == 1 else bias.repeat(1, 1, group, 1)
    return bias.reshape(len(bias), key_value_heads, -1, bias.shape[3])


def _attend_written_out(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: float, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """Attention with caps, the softmax in float32 at least; all tensors are `[requests, key/value heads, rows, size]`.

    Returns:
        what is attended to, and the logarithms of the sums of exponentials, `[requests, key/value heads, rows]`.
    """
    precision = torch.promote_types(queries.dtype, torch.float32)
    scores = (queries @ keys.transpose(2, 3)).to(precision) * scale
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    if bias is not None:
        scores = scores + bias
    return scores.softmax(-1).to(values.dtype) @ values, scores.logsumexp(-1)
