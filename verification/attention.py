"""Tree attention: a token attends to its request's prompt, to its ancestors in the token tree and to itself.

Invariant: the mask is the only thing that tells requests, beams and branches apart. Any set of requests in any state shares one call, and a
prompt's keys are gathered once per request, not once per beam, because every node of a request reads the same row of columns.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from drafting.tree import AttentionLayout

IntArray = npt.NDArray[np.int64]


def tree_attention(
    query: Tensor, key: Tensor, value: Tensor, cache: Tensor, slots: Tensor, layout: AttentionLayout, scale: float
) -> Tensor:
    """Writes the forward's keys and values into the cache and attends.

    Args:
        query: `[tokens, heads, head size]`.
        key, value: `[tokens, key/value heads, head size]`; heads are a multiple of the key/value heads (grouped-query attention).
        cache: `[slots, key/value heads, 2 * head size]`, keys beside values so that one gather reads both.
        slots: `[tokens]` int64, where this forward's keys and values go.
        layout: which columns each query may see.

    Returns:
        `[tokens, heads, head size]`.
    """
    cache[slots] = torch.cat([key, value], dim=-1)
    keys, values = cache[layout.keys].transpose(1, 2).chunk(2, dim=-1)
    queries = (query.view(*layout.queries.shape, *query.shape[1:]) if layout.is_dense else query[layout.queries]).transpose(1, 2)
    grouped = query.shape[1] != key.shape[1]
    attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=layout.mask, scale=scale, enable_gqa=grouped)
    attended = attended.transpose(1, 2).reshape(-1, *query.shape[1:])
    return attended if layout.is_dense else attended[layout.places]


def build_layout(keys: list[IntArray], query_counts: list[int], visible: Tensor, ancestors: Tensor) -> AttentionLayout:
    """Lays out a forward in which the tokens of each request stand together, in the order of `keys`.

    Args:
        keys: per request, the slot behind each of its columns.
        query_counts: per request, how many of the forward's tokens are its own.
        visible: `[tokens]` int64, how many leading columns (of the prompt) each token sees.
        ancestors: `[tokens, depth]` int64, further columns that each token sees, its own among them.
    """
    device = visible.device
    counts = np.array(query_counts)
    widest, columns = int(counts.max()), max(len(row) for row in keys)
    starts = np.cumsum(counts) - counts
    offsets = np.arange(widest)
    queries = torch.from_numpy(starts[:, None] + np.minimum(offsets, counts[:, None] - 1)).to(device)
    places = torch.from_numpy(np.flatnonzero(offsets < counts[:, None])).to(device)
    key_slots = np.zeros((len(keys), columns), np.int64)
    for row, slots in zip(key_slots, keys, strict=True):
        row[: len(slots)] = slots
    mask = torch.arange(columns, device=device) < visible[queries][:, :, None]
    mask.scatter_(2, ancestors[queries], True)
    return AttentionLayout(queries, places, torch.from_numpy(key_slots).to(device), mask[:, None])
