"""Tree attention: a token attends to the prompt of its request, to its ancestors in the token tree and to itself.

Invariant: only the mask separates requests, beams and branches, so requests in any state share one call (continuous batching). The keys of
a prompt are gathered once per request, not once per beam. The PyTorch operations here are the reference and run without Triton; on a GPU,
`verification.hosts.tree_kernel` computes the same in one kernel.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from drafting.beam.model import AttentionLayout

HAS_TRITON = find_spec("triton") is not None


def tree_attention(
    query: Tensor, key: Tensor, value: Tensor, cache: Tensor, slots: Tensor, layouts: Sequence[AttentionLayout], scale: float
) -> Tensor:
    """Write the keys and values of a forward to the cache, then attend; a request may read what another computes in the same forward.

    Args:
        query: `[tokens, heads, head size]`.
        key, value: `[tokens, key/value heads, head size]`; grouped-query attention if there are fewer of them than heads.
        cache: `[slots, key/value heads, 2 * head size]`, keys beside values so that one gather reads both.
        slots: `[tokens]` int64, slots of the keys and values of this forward.
        layouts: the columns that each query may attend to.

    Returns:
        `[tokens, heads, head size]`.
    """
    cache.index_copy_(0, slots, torch.cat([key, value], dim=-1))
    if len(layouts) == 1:
        return _attend(query, cache, layouts[0], scale)
    attended = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    for layout in layouts:
        attended.index_copy_(0, layout.tokens, _attend(query.index_select(0, layout.tokens), cache, layout, scale))
    return attended


def _attend(query: Tensor, cache: Tensor, layout: AttentionLayout, scale: float) -> Tensor:
    """Attend to keys and values in the cache; the queries are those of one layout."""
    if query.is_cuda and HAS_TRITON:
        from verification.hosts.tree_kernel import attend

        return attend(query, cache, layout, scale)
    read = cache.index_select(0, layout.keys.flatten()).view(*layout.keys.shape, *cache.shape[1:])
    keys, values = read.transpose(1, 2).chunk(2, dim=-1)
    queries = (query.view(*layout.queries.shape, *query.shape[1:]) if layout.is_dense else query[layout.queries]).transpose(1, 2)
    grouped = query.shape[1] != cache.shape[1]
    attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=layout.bias.to(query.dtype), scale=scale, enable_gqa=grouped)
    attended = attended.transpose(1, 2).reshape(-1, *query.shape[1:])
    return attended if layout.is_dense else attended[layout.indices]
