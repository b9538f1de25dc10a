"""The token tree: every prefix that any running request has scored or will score, and the protocol that scores them.

Invariant: a node *is* its key/value slot. Tokens, scores and ancestors live in tables indexed by slot, so nodes of all requests are
parallel tensors, appending a level is one scatter, and no step rearranges what an earlier step wrote. Everything that the host must know to
plan a forward (slots, positions, columns) is decided before the contents of a node are, so planning never waits for the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.device import arange, on_device, pad_stack

IntArray = npt.NDArray[np.int64]

# Requests with up to so many new tokens (beams, and prompts of which most is cached) are laid out together; of the longer ones those
# that differ by less than this factor are.
FEW_TOKENS = 32
LENGTH_FACTOR = 4


class TokenTree:
    """Tables over all slots; a slot holds either a prompt token or a tree node.

    A *column* is a token's place among its own request's tokens (prompt first, then nodes in order of allocation): attention sees a request
    as a row of columns. Attributes, each with one row per slot:
        token: `[slots]` int64.
        log_prob: `[slots]` float32, cumulative log-probability of the prefix, as whoever goes on from it has rated it.
        score: `[slots]` float32, what a search that samples ranks the prefix by: its log-probability, perturbed.
        ancestors: `[slots, depth]` int64, the columns of the node's ancestors and its own; repeated at the end to fill the row.
    """

    def __init__(self, slots: int, depth: int, device: torch.device) -> None:
        self.token = torch.zeros(slots, dtype=torch.int64, device=device)
        self.log_prob = torch.zeros(slots, dtype=torch.float32, device=device)
        self.score = torch.zeros(slots, dtype=torch.float32, device=device)
        self.ancestors = torch.zeros(slots, depth, dtype=torch.int64, device=device)
        self._levels = torch.arange(1, depth + 1, device=device)

    def add_prompt(self, slots: Tensor, tokens: Tensor, columns: Tensor) -> None:
        """Writes prompt tokens; the last one becomes the root of its request's tree. All arguments are `[tokens]` int64."""
        self.token[slots] = tokens
        self.ancestors[slots] = columns[:, None]
        # Not by the slot itself: PyTorch would read it to find its place.
        self.log_prob.index_fill_(0, slots[-1:], 0.0)
        self.score.index_fill_(0, slots[-1:], 0.0)

    def add_nodes(self, slots: Tensor, *, parents: Tensor, tokens: Tensor, depths: Tensor, columns: Tensor) -> None:
        """Writes nodes below nodes that are there already. All arguments are `[nodes]`; parents are slots, depths start at 1."""
        self.token.index_copy_(0, slots, tokens)
        inherited = self._levels < depths[:, None]
        self.ancestors.index_copy_(0, slots, torch.where(inherited, self.ancestors.index_select(0, parents), columns[:, None]))

    def rate(self, slots: Tensor, log_probs: Tensor, scores: Tensor | None) -> None:
        """Says what nodes are worth; all arguments are `[nodes]`. There need be no scores where no search samples."""
        self.log_prob.index_copy_(0, slots, log_probs)
        if scores is not None:
            self.score.index_copy_(0, slots, scores)


@dataclass(frozen=True)
class AttentionLayout:
    """Who may attend to what among some requests of a forward: each request's queries and keys as padded rows.

    Attributes:
        queries: `[requests, queries]` int64, the tokens of these requests, counted among themselves; padding repeats one of them.
        places: `[tokens]` int64, where in the flattened `queries` each of these tokens stands.
        keys: `[requests, columns]` int64, the slot behind each column; padding is any slot.
        mask: `[requests, 1, queries, columns]` bool, true where the query may attend to the key; no row is all false.
        tokens: `[tokens]` int64, these tokens' rows in the forward.
    """

    queries: Tensor
    places: Tensor
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
        parts = (self.queries, self.places, self.keys, self.mask, self.tokens)
        return AttentionLayout(*(part.to(device) for part in parts))

    @property
    def is_dense(self) -> bool:
        """Whether the forward's tokens are exactly the queries in order, so that no padding need be added or removed."""
        return self.queries.numel() == self.places.numel()


@dataclass(frozen=True)
class TreeBatch:
    """One forward over prompt tokens and tree nodes of many requests.

    Attributes:
        tokens: `[tokens]` int64 token ids.
        positions: `[tokens]` int64 position ids: prompt length + depth - 1 for a node.
        slots: `[tokens]` int64, where each token's key and value are written.
        outputs: `[outputs]` int64, the rows whose next-token logits are wanted; None for all.
        attention: who sees what; each token is in one of the layouts.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    outputs: Tensor | None
    attention: tuple[AttentionLayout, ...]

    def __post_init__(self) -> None:
        laid_out = sum(len(layout.places) for layout in self.attention)
        if not self.tokens.shape == self.positions.shape == self.slots.shape == (laid_out,):
            raise ValueError("Tokens, positions, slots and attention places must be rows of one length.")

    def at_outputs(self, rows: Tensor) -> Tensor:
        """Of `[tokens, ...]` rows of the forward those whose logits are wanted."""
        return rows if self.outputs is None else rows.index_select(0, self.outputs)

    def to(self, device: torch.device) -> "TreeBatch":
        """The same forward on a device; itself where it is there already."""
        if self.tokens.device == device:
            return self
        tokens, positions, slots = (part.to(device) for part in (self.tokens, self.positions, self.slots))
        outputs = None if self.outputs is None else self.outputs.to(device)
        return TreeBatch(tokens, positions, slots, outputs, tuple(layout.to(device) for layout in self.attention))


def build_layouts(keys: Sequence[IntArray], query_counts: Sequence[int], visible: Tensor, ancestors: Tensor) -> tuple[AttentionLayout, ...]:
    """Lays out a forward so that no row is padded to many times its length: a prompt among beams gets a layout of its own.

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
    """Lays out requests of which the tokens stand together, in the order of `keys`.

    Args:
        keys: per request, the slot behind each of its columns.
        query_counts: per request, how many of the tokens are its own.
        visible: `[tokens]` int64, how many leading columns (of the prompt) each token sees.
        ancestors: `[tokens, depth]` int64, further columns that each token sees, its own among them.
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
    places = on_device(np.flatnonzero(offsets < counts[:, None]), device)
    mask = arange(key_slots.shape[1], device) < visible[queries][:, :, None]
    mask.scatter_(2, ancestors[queries], True)
    return AttentionLayout(queries, places, on_device(key_slots, device), mask[:, None], arange(len(visible), device))


class TreeModel(Protocol):
    """A causal language model that scores the nodes of token trees; draft and target both are one."""

    device: torch.device
    total_slots: int

    def score(self, batch: TreeBatch) -> Tensor:
        """Runs one forward, keeps every token's keys and values in its slot, and returns logits `[outputs, vocabulary]`."""
        ...

    def close(self) -> None:
        """Frees what the model holds."""
        ...
