"""Lays out the tree attention of a forward: which key/value slots each token may attend to.

Invariant: a token attends to the prompt before it, to its ancestors in the token tree and to itself, and a prompt among beams does not pad
them to its length.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from drafting.beam.model import AttentionLayout
from drafting.device import arange, on_device, pad_stack

IntArray = npt.NDArray[np.int64]

# Requests with up to so many new tokens (beams, and prompts of which most is cached) are laid out together; of the longer ones those
# that differ by less than this factor are.
FEW_TOKENS = 32
LENGTH_FACTOR = 4


def build_layouts(keys: Sequence[IntArray], query_counts: Sequence[int], visible: Tensor, ancestors: Tensor) -> tuple[AttentionLayout, ...]:
    """Lay out a forward so that no row is padded to many times its length: a prompt among beams gets a layout of its own.

    For the arguments see `build_layout`.
    """
    if max(query_counts) <= FEW_TOKENS or len(keys) == 1:
        return (build_layout(keys, query_counts, visible, ancestors),)
    counts = np.array(query_counts)
    sizes = np.ceil(np.log(np.maximum(counts / FEW_TOKENS, 1)) / np.log(LENGTH_FACTOR))
    if (sizes == sizes[0]).all():
        return (build_layout(keys, query_counts, visible, ancestors),)
    size_of_token = np.repeat(sizes, counts)
    layouts = []
    for size in np.unique(sizes):
        tokens = on_device(np.flatnonzero(size_of_token == size), visible.device)
        members = np.flatnonzero(sizes == size)
        rows = visible.index_select(0, tokens), ancestors.index_select(0, tokens)
        layout = build_layout([keys[member] for member in members], counts[members].tolist(), *rows)
        layouts.append(replace(layout, tokens=tokens))
    return tuple(layouts)


def build_layout(keys: Sequence[IntArray], query_counts: Sequence[int], visible: Tensor, ancestors: Tensor) -> AttentionLayout:
    """Lay out requests of which the tokens stand together, in the order of `keys`.

    Args:
        keys: `[columns]` per request, the key/value slots of its sequence.
        query_counts: tokens of each request.
        visible: `[tokens]` int64, how many leading columns (of the prompt) each token attends to.
        ancestors: `[tokens, depth]` int64, further columns that each token attends to, its own among them.
    """
    device = visible.device
    if len(keys) == 1:
        own = arange(query_counts[0], device)
        mask = arange(len(keys[0]), device) < visible[:, None]
        mask.scatter_(1, ancestors, True)
        return AttentionLayout(own[None], own, on_device(keys[0][None], device), mask[None, None], own)
    counts = np.array(query_counts)
    widest, key_slots = int(counts.max()), pad_stack(keys, 0)
    starts = np.cumsum(counts) - counts
    offsets = np.arange(widest)
    queries = on_device(starts[:, None] + np.minimum(offsets, counts[:, None] - 1), device)
    indices = on_device(np.flatnonzero(offsets < counts[:, None]), device)
    mask = arange(key_slots.shape[1], device) < visible[queries][:, :, None]
    mask.scatter_(2, ancestors[queries], True)
    return AttentionLayout(queries, indices, on_device(key_slots, device), mask[:, None], arange(len(visible), device))
