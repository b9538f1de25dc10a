"""The contract of a model host: one forward over the nodes of token trees, and the layout of the tree attention in it.

Invariant: the layouts of a batch are the only thing that tells requests, beams and branches apart. A request is one row of keys, its prompt
and its tree nodes in order of allocation, which all its queries share. A token attends to the prompt before it, to its ancestors in the
token tree and to itself, and a prompt among beams does not pad them to its length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from drafting.array_types import IntArray
from drafting.beam.rows import Rows
from drafting.device import arange, concat, is_async, on_device, pad_stack

# Requests with at most so many new tokens (beams, and prompts of which most is cached) are laid out together. Longer ones are laid out
# together with those whose lengths differ by less than this factor.
FEW_TOKENS = 32
LENGTH_FACTOR = 4
# On a CPU, a request with at least so many tree nodes, of which so many are new, is laid out in two parts: its prompt, which all nodes see,
# and what each node sees of the others. A GPU's kernel passes over what no query sees.
WIDE_TREE = 160
MANY_NODES = 64


@dataclass(frozen=True)
class AttentionLayout:
    """Queries, keys and mask of some requests of a forward, padded to rows of one length.

    Attributes:
        queries: `[requests, queries]` int64, the tokens of each request, numbered within this layout; padding repeats one of them.
        indices: `[tokens]` int64, where each token of the layout stands in the flattened `queries`.
        keys: `[requests, columns]` int64 key/value slots; padding repeats the request's first, for what is masked is multiplied by 0, and
            another request's may hold NaN.
        mask: `[requests, 1, queries, columns]` bool, true where the query may attend to the key; no row is all false.
        tokens: `[tokens]` int64, the row in the forward of each token of the layout.
        biases: `[requests, heads, queries, columns]` float32 to add to the scores of attention; None for none.
        first: the first key/value slot, where there is one request and its slots follow each other; else None.
        sees_all: True if every query attends to all keys, and no biases are added.
        further: a layout of further keys for the same tokens, which attend to both as if all keys stood in one row; None for none.
    """

    queries: Tensor
    indices: Tensor
    keys: Tensor
    mask: Tensor
    tokens: Tensor
    biases: Tensor | None = None
    first: int | None = None
    sees_all: bool = False
    further: "AttentionLayout | None" = None

    def __post_init__(self) -> None:
        expected = (self.queries.shape[0], 1, self.queries.shape[1], self.keys.shape[1])
        if tuple(self.mask.shape) != expected:
            raise ValueError(f"The mask must have shape {expected}, got {tuple(self.mask.shape)}.")

    @cached_property
    def bias(self) -> Tensor:
        """Biases and mask as float32 numbers to add to attention scores, -inf where masked; made once for all layers that add the same."""
        added = torch.zeros(self.mask.shape, device=self.mask.device) if self.biases is None else self.biases
        return added.masked_fill(~self.mask, float("-inf"))

    def to(self, device: torch.device) -> "AttentionLayout":
        """The same layout on a device."""
        parts = (self.queries, self.indices, self.keys, self.mask, self.tokens)
        queries, indices, keys, mask, tokens = (part.to(device) for part in parts)
        biases = None if self.biases is None else self.biases.to(device)
        further = None if self.further is None else self.further.to(device)
        return AttentionLayout(queries, indices, keys, mask, tokens, biases, self.first, self.sees_all, further)

    @property
    def is_dense(self) -> bool:
        """True if the tokens are exactly the queries in order, without padding."""
        return self.queries.numel() == self.indices.numel()


@dataclass(frozen=True)
class EncoderBatch:
    """The part of a forward for an encoder: new prompts to encode, and the layouts of cross-attention to all prompts.

    Attributes:
        tokens: `[requests, longest]` int64 token ids of the prompts that are new; padding is any token.
        indices: `[tokens]` int64, where the tokens that are no padding stand in the flattened `tokens`.
        slots: `[tokens]` int64, where the keys and values of the tokens in `indices` are written.
        attention: layouts of cross-attention, from the decoder's tokens to the prompts of their requests, new or not.
    """

    tokens: Tensor
    indices: Tensor
    slots: Tensor
    attention: tuple[AttentionLayout, ...]

    def to(self, device: torch.device) -> "EncoderBatch":
        """The same on a device."""
        tokens, indices, slots = (part.to(device) for part in (self.tokens, self.indices, self.slots))
        return EncoderBatch(tokens, indices, slots, tuple(layout.to(device) for layout in self.attention))


@dataclass(frozen=True)
class TreeBatch:
    """One forward over prompt tokens and tree nodes of many requests.

    With an encoder, the tokens are the decoder's: the last token of each prompt and the tree nodes below it.

    Attributes:
        tokens: `[tokens]` int64 token ids.
        positions: `[tokens]` int64 position ids.
        slots: `[tokens]` int64, where keys and values are written.
        outputs: `[outputs]` int64, rows of the tokens after which the next token is to be predicted; None for all.
        attention: layouts of self-attention; each token is in exactly one of them.
        encoder: the encoder's part of the forward, for models that have one.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    outputs: Tensor | None
    attention: tuple[AttentionLayout, ...]
    encoder: EncoderBatch | None = None

    def __post_init__(self) -> None:
        laid_out = sum(len(layout.indices) for layout in self.attention)
        if not self.tokens.shape == self.positions.shape == self.slots.shape == (laid_out,):
            raise ValueError("Tokens, positions, slots and attention indices must be rows of one length.")

    @cached_property
    def written(self) -> Tensor | slice:
        """`slots` to write to. On a CPU, slots that follow each other are a slice, because writing to that takes much less time."""
        first = None if is_async(self.slots.device) else _first(self.slots.numpy())
        return self.slots if first is None else slice(first, first + len(self.slots))

    @property
    def size(self) -> int:
        """Number of tokens that the forward computes, the encoder's among them."""
        return len(self.tokens) + (0 if self.encoder is None else len(self.encoder.slots))

    def at_outputs(self, rows: Tensor) -> Tensor:
        """The rows of the outputs, `[outputs, ...]`, among those of all tokens, `[tokens, ...]`."""
        return rows if self.outputs is None else rows.index_select(0, self.outputs)

    def to(self, device: torch.device) -> "TreeBatch":
        """The same forward on a device; itself where it is there already."""
        if self.tokens.device == device:
            return self
        tokens, positions, slots = (part.to(device) for part in (self.tokens, self.positions, self.slots))
        outputs = None if self.outputs is None else self.outputs.to(device)
        encoder = None if self.encoder is None else self.encoder.to(device)
        return TreeBatch(tokens, positions, slots, outputs, tuple(layout.to(device) for layout in self.attention), encoder)


class TreeModel(Protocol):
    """A language model that scores the nodes of token trees: the target or the draft.

    Attributes:
        total_slots: key/value slots.
        has_encoder: True if an encoder reads all of a prompt but its last token, with which the decoder's text begins.
    """

    device: torch.device
    total_slots: int
    has_encoder: bool

    def score(self, batch: TreeBatch) -> Rows:
        """Run one forward, keep keys and values in the tokens' slots, and return the rows of its `outputs`."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


def build_layouts(
    keys: Sequence[IntArray],
    query_counts: Sequence[int],
    visible: Tensor,
    ancestors: Tensor,
    shared: Sequence[int],
    prompt_queries: Sequence[int],
) -> tuple[AttentionLayout, ...]:
    """Lay out a forward so that no row is padded to many times its length: a prompt among beams gets a layout of its own, and so does a
    wide tree, of which each query sees next to nothing.

    For the other arguments see `build_layout`.

    Args:
        shared: number of columns at the beginning of each request that are its prompt's; the others are nodes.
        prompt_queries: number of tokens at the beginning of each request that are its prompt's; the others are nodes.
    """
    trees = [len(own) - prompt for own, prompt in zip(keys, shared, strict=True)]
    if max(trees) < WIDE_TREE and (max(query_counts) <= FEW_TOKENS or len(keys) == 1):
        return (build_layout(keys, query_counts, visible, ancestors),)
    counts, of_prompts = np.array(query_counts), np.array(prompt_queries)
    is_wide = (np.array(trees) >= WIDE_TREE) & (counts - of_prompts >= MANY_NODES) & (not is_async(visible.device))
    starts = np.cumsum(counts) - counts
    layouts = []
    for each in np.flatnonzero(is_wide):
        first, end = int(starts[each] + of_prompts[each]), int(starts[each] + counts[each])
        split = build_split(keys[each], ancestors.narrow(0, first, end - first), shared[each])
        layouts.append(replace(split, tokens=arange(end, visible.device)[first:]))
    # What is left of a request whose nodes are laid out is its prompt.
    counts = np.where(is_wide, of_prompts, counts)
    keys = [own[:prompt] if wide else own for own, prompt, wide in zip(keys, shared, is_wide, strict=True)]
    sizes = np.ceil(np.log(np.maximum(counts / FEW_TOKENS, 1)) / np.log(LENGTH_FACTOR))
    for size in np.unique(sizes[counts > 0]):
        members = np.flatnonzero((sizes == size) & (counts > 0))
        if counts[members].sum() == len(visible):
            return (build_layout(keys, query_counts, visible, ancestors),)
        tokens = on_device(concat([np.arange(starts[each], starts[each] + counts[each]) for each in members]), visible.device)
        rows = visible.index_select(0, tokens), ancestors.index_select(0, tokens)
        layouts.append(replace(build_layout([keys[each] for each in members], counts[members].tolist(), *rows), tokens=tokens))
    return tuple(layouts)


def build_layout(keys: Sequence[IntArray], query_counts: Sequence[int], visible: Tensor, ancestors: Tensor) -> AttentionLayout:
    """Lay out requests whose tokens follow each other, request by request in the order of `keys`.

    Args:
        keys: `[columns]` per request, the key/value slots of its sequence.
        query_counts: tokens of each request.
        visible: `[tokens]` int64, how many columns from the beginning (of the prompt) each token attends to.
        ancestors: `[tokens, depth]` int64, further columns that each token attends to, its own among them.
    """
    device = visible.device
    if len(keys) == 1:
        own = arange(query_counts[0], device)
        mask = arange(len(keys[0]), device) < visible[:, None]
        mask.scatter_(1, ancestors, True)
        return AttentionLayout(own[None], own, on_device(keys[0][None], device), mask[None, None], own, first=_first(keys[0]))
    counts = np.array(query_counts)
    widest, key_slots = int(counts.max()), pad_stack(keys, -1)
    key_slots = np.where(key_slots < 0, key_slots[:, :1], key_slots)
    starts = np.cumsum(counts) - counts
    offsets = np.arange(widest)
    queries = on_device(starts[:, None] + np.minimum(offsets, counts[:, None] - 1), device)
    indices = on_device(np.flatnonzero(offsets < counts[:, None]), device)
    mask = arange(key_slots.shape[1], device) < visible[queries][:, :, None]
    mask.scatter_(2, ancestors[queries], True)
    return AttentionLayout(queries, indices, on_device(key_slots, device), mask[:, None], arange(len(visible), device))


def build_split(keys: IntArray, ancestors: Tensor, shared: int) -> AttentionLayout:
    """Lay out many nodes of one request: the prompt's columns, which all of them see, and further ones that are each node's own.

    So the work grows with the queries, where one row of all columns makes it grow with their square. For the arguments see `build_layouts`.
    """
    device, count = ancestors.device, len(ancestors)
    order, slots = arange(count, device), on_device(keys, device)
    # The last ancestor of a row repeats, and is attended to once.
    is_first = torch.ones(ancestors.shape, dtype=torch.bool, device=device)
    is_first[:, 1:] = ancestors[:, 1:] != ancestors[:, :-1]
    own = AttentionLayout(order[:, None], order, slots.take(ancestors), is_first[:, None, None], order)
    return replace(build_whole(keys[:shared], count, device), further=own)


def build_whole(keys: IntArray, queries: int, device: torch.device) -> AttentionLayout:
    """Lay out `queries` tokens of one request, all of which attend to all columns of `keys`."""
    order = arange(queries, device)
    everything = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device).expand(1, 1, queries, len(keys))
    return AttentionLayout(order[None], order, on_device(keys[None], device), everything, order, first=_first(keys), sees_all=True)


def _first(slots: IntArray) -> int | None:
    """The first slot, if the others follow it without a gap; else None."""
    return int(slots[0]) if (slots[1:] - slots[:-1] == 1).all() else None
