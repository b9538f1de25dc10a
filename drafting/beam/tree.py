"""The token tree of speculative decoding: tables of all nodes on the device, and the sequence of each request on the host.

Invariant: a node *is* its key/value slot. Tokens, scores and ancestors are tables indexed by slot, so a level of all requests is appended
by one scatter, and nothing is ever moved. A sequence holds the prompt and then the nodes in order of allocation, parents before their
children. All of it is decided on the host, except which prefixes drafted nodes stand for, and no forward asks for that; so planning a
forward never reads from the device.

In every forward the target computes what it has not computed yet, which is always a tail of the sequence. The draft computes only what it
is asked for, so what it has computed is marked by slot: sequences that share slots then know the same about them, whichever of them the
draft was asked for.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from drafting.array_types import IntArray
from drafting.device import arange, concat, on_device
from drafting.trie.arrays import ROOT

# Tree nodes for which a new sequence has room: enough for a plain search of usual width. For more, its tables grow.
ROOM = 64
# Stands for the trie node of a drafted prefix that the host has not read; -1 stands for no prefix.
UNREAD = -2


class Origin(IntEnum):
    """The origin of a token in a sequence.

    Attributes:
        TARGET: the request, whose prompt it is, or the target's selection.
        CANDIDATE: a candidate that the request brings for the target to score.
        LAST, ITEMS, CHILDREN, BEAM: a draft, made from what the user's last search kept, from a retriever's items, from the trie, or by
            the draft model.
    """

    TARGET = 0
    CANDIDATE = 1
    LAST = 2
    ITEMS = 3
    CHILDREN = 4
    BEAM = 5


class TokenTree:
    """Tables over all slots, each of a prompt token or a tree node.

    Attributes:
        token: `[slots]` int64.
        cum_log_prob: `[slots]` float32, cumulative log-probability of the prefix by the model that last selected it.
        score: `[slots]` float32, the perturbed log-probability by which a sampled search ranks the prefix.
        trie_node: `[slots]` int64, the trie node of the prefix: the trie's root for a root; a leaf for a node that stands for no prefix.
        ancestors: `[slots, depth]` int64, the indices in the sequence of the token's ancestors below the root and of itself, from the top;
            the last one repeats.
    """

    def __init__(self, slots: int, depth: int, device: torch.device) -> None:
        self.token = torch.zeros(slots, dtype=torch.int64, device=device)
        self.cum_log_prob = torch.zeros(slots, dtype=torch.float32, device=device)
        self.score = torch.zeros(slots, dtype=torch.float32, device=device)
        self.trie_node = torch.full((slots,), ROOT, device=device)
        self.ancestors = torch.zeros(slots, depth, dtype=torch.int64, device=device)
        self._levels = torch.arange(1, depth + 1, device=device)

    def add_prompt(self, slots: Tensor, tokens: Tensor) -> None:
        """Write a whole prompt, `[tokens]` int64 each; its last token becomes the root of its request's tree."""
        self.token[slots] = tokens
        self.ancestors[slots] = arange(len(slots), slots.device)[:, None]
        # Indexing by the slot itself would read it.
        self.cum_log_prob.index_fill_(0, slots[-1:], 0.0)
        self.score.index_fill_(0, slots[-1:], 0.0)
        self.trie_node.index_fill_(0, slots[-1:], ROOT)

    def add_nodes(self, slots: Tensor, *, parents: Tensor, tokens: Tensor, depths: Tensor, indices: Tensor) -> None:
        """Write nodes below known ones, `[nodes]` int64 each; parents are slots, depths start at 1."""
        self.token.index_copy_(0, slots, tokens)
        inherited = self._levels < depths[:, None]
        self.ancestors.index_copy_(0, slots, torch.where(inherited, self.ancestors.index_select(0, parents), indices[:, None]))

    def set_scores(self, slots: Tensor, cum_log_probs: Tensor, scores: Tensor | None) -> None:
        """Write the ranking of nodes, `[nodes]` float32 each; `scores` is None where no search samples."""
        self.cum_log_prob.index_copy_(0, slots, cum_log_probs)
        if scores is not None:
            self.score.index_copy_(0, slots, scores)


class SequenceState:
    """The tokens of one request, whose last prompt token is the root of its tree.

    Attributes:
        length: number of tokens.
        computed: number of tokens at the beginning that the target has computed.
        deepest: the largest depth of a node.
        positions: `[length]` int64 position ids; prompt length + depth - 1 for a node.
        visible: `[length]` int64, how many tokens from the beginning each token attends to; for a node the whole prompt.
        slots: `[length]` int64 key/value slots.
        depths: `[length]` int64; 0 for the prompt.
        trie_nodes: `[length]` int64; the trie's root for the prompt, -1 for a node that stands for no prefix, `UNREAD` where only the
            device knows it yet.
        origins: `[length]` int64, the `Origin` of each.
    """

    positions: IntArray
    visible: IntArray
    slots: IntArray
    depths: IntArray
    trie_nodes: IntArray
    origins: IntArray

    def __init__(self, prompt_slots: IntArray, draft_computed: IntArray, computed: int = 0) -> None:
        """
        Args:
            prompt_slots: `[prompt]` int64.
            draft_computed: `[slots of the model]` int64, 1 where the draft has computed the token in a slot; it is written to.
            computed: number of tokens at the beginning that the target has computed already; the slots of the others are new.
        """
        self.prompt_length = len(prompt_slots)
        self.computed, self.deepest = computed, 0
        self._draft_computed = draft_computed
        self._draft_computed[prompt_slots[computed:]] = 0
        # A row per field, so that those that are read together lie together.
        self._fields = np.zeros((7, self.prompt_length + ROOM), np.int64)
        self._resize(self.prompt_length)
        self.positions[:] = self._indices[:] = np.arange(self.length)
        self.visible[:] = self.positions + 1
        self.slots[:] = prompt_slots
        self.trie_nodes[:] = ROOT

    def _resize(self, length: int) -> None:
        self.length = length
        if length > self._fields.shape[1]:
            self._fields = np.pad(self._fields, ((0, 0), (0, length)))
        fields = self._fields[:, :length]
        self.positions, self.visible, self.slots, self.depths, self._indices, self.trie_nodes, self.origins = fields

    def resize_prompt(self, length: int) -> None:
        """Take the first `length` tokens for the whole prompt, and forget all nodes.

        A prompt that was made shorter may grow again, up to the length with which the sequence was made.
        """
        self.prompt_length = length
        self._resize(length)

    def drop_nodes(self) -> IntArray:
        """Forget all nodes below the root, and that the root was computed by any model; return the slots of the nodes."""
        slots = self.slots[self.prompt_length :].copy()
        self._draft_computed[self.slots[self.root]] = 0
        self._resize(self.prompt_length)
        self.computed, self.deepest = min(self.computed, self.root), 0
        return slots

    @property
    def root(self) -> int:
        """The root's index."""
        return self.prompt_length - 1

    @property
    def nodes(self) -> int:
        """Number of tree nodes below the root."""
        return self.length - self.prompt_length

    @property
    def uncomputed(self) -> int:
        """Number of tokens that the target has not computed."""
        return self.length - self.computed

    @property
    def uncomputed_nodes(self) -> int:
        """Number of tree nodes, the root included, that the target has not computed."""
        return self.length - max(self.computed, self.root)

    def append(self, slots: IntArray, depth: int | IntArray, trie_nodes: IntArray, origin: int | IntArray = Origin.TARGET) -> IntArray:
        """Add nodes, all of one depth or of `[nodes]` ascending depths, and return their indices."""
        first = self.length
        self._resize(first + len(slots))
        self.deepest = max(self.deepest, int(np.max(depth, initial=0)))
        self.positions[first:] = self.root + depth
        self.visible[first:] = self.prompt_length
        self.slots[first:] = slots
        self._draft_computed[slots] = 0
        self.trie_nodes[first:] = trie_nodes
        self.depths[first:] = depth
        self.origins[first:] = origin
        self._indices[first:] = indices = np.arange(first, self.length)
        return indices

    def draft_uncomputed(self, nodes: IntArray) -> IntArray:
        """Indices of what the draft has not computed: of the tokens before the root, and of these nodes."""
        indices = np.concatenate([np.arange(self.root), nodes])
        missing: IntArray = indices[self._draft_computed.take(self.slots.take(indices)) == 0]
        return missing

    def mark_draft_computed(self, indices: IntArray) -> None:
        """Note that the draft computes these tokens."""
        self._draft_computed[self.slots[indices]] = 1

    def forward_fields(self, indices: IntArray) -> IntArray:
        """`[3, tokens]`: positions, visible, slots."""
        return self._fields[:3].take(indices, axis=1)

    def beam_fields(self, indices: IntArray, asked: IntArray | None = None) -> IntArray:
        """`[2, tokens]`: slots, and 1 for tokens in `asked` (indices of those below which the draft was asked in this round), else 0."""
        return np.stack([self.slots.take(indices), np.zeros_like(indices) if asked is None else np.isin(indices, asked)])

    def node_fields(self, indices: IntArray) -> IntArray:
        """`[4, tokens]`: slots, depths, the indices themselves, and trie nodes."""
        return self._fields[2:6].take(indices, axis=1)


def to_device(fields: Sequence[IntArray], device: torch.device) -> tuple[Tensor, ...]:
    """Join arrays `[fields, tokens]` along their tokens, move them in one transfer, and return the fields."""
    return on_device(concat(fields), device).unbind(0)
