"""One request's tokens as columns: its prompt, then its tree nodes in order of allocation, where these stand in the trie, and who has
computed which of them.

Invariant: everything here is decided on the host, so planning never reads from the device. A parent is always allocated before its
children, so the columns that a token may attend to all come before its own. The target computes in every forward whatever it has not
computed, so what it has is always a head of the columns and one number says how long it is; the draft computes what it is asked for, so of
each column it is known whether it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.beam.tree import TokenTree, TreeBatch, build_layouts
from drafting.device import arange, concat, on_device
from drafting.trie.arrays import ROOT

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Columns that a request has room for beyond its prompt at first: a plain search of usual width needs no more.
ROOM = 64


class SequenceState:
    """The columns of one request; column `prompt_length - 1`, the last prompt token, is the root of its tree.

    Attributes:
        scored: how many columns, the first ones, the target has computed.
        deepest: the largest depth of a column.
    """

    def __init__(self, prompt_slots: IntArray) -> None:
        self.prompt_length = len(prompt_slots)
        self.scored = 0
        self.deepest = 0
        self._count = self.prompt_length
        # Per column: position id, how many leading columns it sees, slot (the three that a forward must know), place in the trie, depth.
        self._rows = np.empty((5, self._count + ROOM), np.int64)
        self._rows[0, : self._count] = np.arange(self._count)
        self._rows[1, : self._count] = np.arange(1, self._count + 1)
        self._rows[2, : self._count] = prompt_slots
        self._rows[3] = ROOT
        self._rows[4] = 0
        self._drafted = np.zeros(self._count + ROOM, bool)

    def __len__(self) -> int:
        return self._count

    @property
    def slots(self) -> IntArray:
        """`[columns]` int64, the key/value slot of each column."""
        return self._rows[2, : self._count]

    @property
    def depths(self) -> IntArray:
        """`[columns]` int64, 0 for the prompt."""
        return self._rows[4, : self._count]

    @property
    def trie_nodes(self) -> IntArray:
        """`[columns]` int64, where each prefix stands in the trie; the root for the prompt."""
        return self._rows[3, : self._count]

    @property
    def drafted(self) -> BoolArray:
        """`[columns]` bool, whether the draft has computed it; to be written to."""
        return self._drafted[: self._count]

    @property
    def root(self) -> int:
        """The root's column."""
        return self.prompt_length - 1

    @property
    def unscored(self) -> IntArray:
        """The columns that the target has not computed."""
        return np.arange(self.scored, self._count)

    @property
    def unscored_nodes(self) -> int:
        """How many of them are tree nodes, the root included."""
        return self._count - max(self.scored, self.root)

    def append(self, slots: IntArray, depth: int, trie_nodes: IntArray) -> IntArray:
        """Adds nodes of one depth and returns their columns."""
        first, self._count = self._count, self._count + len(slots)
        if self._count > len(self._drafted):
            more = self._count
            self._rows, self._drafted = np.pad(self._rows, ((0, 0), (0, more))), np.pad(self._drafted, (0, more))
        self.deepest = max(self.deepest, depth)
        added = slice(first, self._count)
        self._rows[0, added] = self.prompt_length - 1 + depth
        self._rows[1, added] = self.prompt_length
        self._rows[2, added] = slots
        self._rows[3, added] = trie_nodes
        self._rows[4, added] = depth
        return np.arange(first, self._count)

    def copy(self) -> "SequenceState":
        """Columns that go on from here without these noticing."""
        copy = SequenceState(self.slots[: self.prompt_length])
        copy.scored, copy.deepest, copy._count = self.scored, self.deepest, self._count
        copy._rows, copy._drafted = self._rows.copy(), self._drafted.copy()
        return copy

    def node_rows(self, columns: IntArray) -> IntArray:
        """What the tree must know of some nodes, `[4, columns]`: slots, places in the trie, depths, and the columns themselves."""
        return np.concatenate([self._rows[2:].take(columns, axis=1), columns[None]])

    def forward_rows(self, columns: IntArray) -> IntArray:
        """What a forward must know of some columns, `[3, columns]`: position ids, how many leading columns each one sees, and slots.

        A prompt token stands at its own place and sees all up to itself; a node stands at prompt length + depth - 1 and sees the prompt.
        """
        return self._rows[:3].take(columns, axis=1)


@dataclass(frozen=True)
class ForwardPart:
    """What one request puts into a forward.

    Attributes:
        columns: the tokens to compute.
        outputs: how many of the last `columns` want next-token logits.
    """

    request: SequenceState
    columns: IntArray
    outputs: int

    @property
    def trie_nodes(self) -> IntArray:
        """`[outputs]` int64, where the prefixes whose logits are wanted stand in the trie."""
        return self.request.trie_nodes[self.columns[len(self.columns) - self.outputs :]]


def forward_batch(tree: TokenTree, parts: Sequence[ForwardPart]) -> TreeBatch:
    """Joins the parts of all requests, each of at least one column, into one forward."""
    device = tree.token.device
    counts = [len(part.columns) for part in parts]
    outputs = [part.outputs for part in parts]
    positions, visible, slots = to_device([part.request.forward_rows(part.columns) for part in parts], device)
    return TreeBatch(
        tokens=tree.token.index_select(0, slots),
        positions=positions,
        slots=slots,
        outputs=None if outputs == counts else _last_rows(counts, outputs, device),
        attention=build_layouts(
            keys=[part.request.slots for part in parts],
            query_counts=counts,
            visible=visible,
            ancestors=tree.ancestors.index_select(0, slots),
        ),
    )


def _last_rows(counts: Sequence[int], wanted: Sequence[int], device: torch.device) -> Tensor:
    """The last rows of each part of a forward, as many as are wanted."""
    if len(counts) == 1:
        return arange(counts[0], device)[counts[0] - wanted[0] :]
    rows = [np.arange(end - last, end) for end, last in zip(np.cumsum(counts), wanted, strict=True)]
    return on_device(np.concatenate(rows), device)


def to_device(parts: Sequence[IntArray], device: torch.device) -> tuple[Tensor, ...]:
    """Joins arrays `[rows, columns]` along their columns and moves them in one transfer; returns the rows."""
    return on_device(concat(parts), device).unbind(0)
