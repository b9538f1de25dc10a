"""One request's tokens as columns: its prompt, then its tree nodes in order of allocation, and who has computed which of them.

Invariant: everything here is decided on the host. A parent is always allocated before its children, so the columns that a token may attend
to all come before its own; and a column is *scored* by a model exactly when that model has its keys and values.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from drafting.tree import TokenTree, TreeBatch, build_layout

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class RequestColumns:
    """The columns of one request; column `prompt_length - 1`, the last prompt token, is the root of its tree.

    Attributes:
        slots: `[columns]` int64, the key/value slot of each column.
        depths: `[columns]` int64, 0 for the prompt.
        scored: `[columns]` bool, whether the target has computed it.
        drafted: `[columns]` bool, whether the draft has computed it.
    """

    def __init__(self, prompt_slots: IntArray) -> None:
        self.prompt_length = len(prompt_slots)
        self.slots = prompt_slots
        self.depths = np.zeros(self.prompt_length, np.int64)
        self.scored = np.zeros(self.prompt_length, bool)
        self.drafted = np.zeros(self.prompt_length, bool)

    @property
    def root(self) -> int:
        """The root's column."""
        return self.prompt_length - 1

    def append(self, slots: IntArray, depth: int) -> IntArray:
        """Adds nodes of one depth and returns their columns."""
        first = len(self.slots)
        self.slots = np.concatenate([self.slots, slots])
        self.depths = np.concatenate([self.depths, np.full(len(slots), depth)])
        self.scored = np.concatenate([self.scored, np.zeros(len(slots), bool)])
        self.drafted = np.concatenate([self.drafted, np.zeros(len(slots), bool)])
        return np.arange(first, first + len(slots))

    def positions(self, columns: IntArray) -> IntArray:
        """Position ids: a prompt token's place, or prompt length + depth - 1."""
        return np.where(self.depths[columns] > 0, self.prompt_length + self.depths[columns] - 1, columns)

    def visible(self, columns: IntArray) -> IntArray:
        """How many leading columns each token sees: a prompt token all up to itself, a node the prompt."""
        return np.where(self.depths[columns] > 0, self.prompt_length, columns + 1)


@dataclass(frozen=True)
class ForwardPart:
    """What one request puts into a forward.

    Attributes:
        columns: the tokens to compute.
        outputs: how many of the last `columns` want next-token logits.
    """

    request: RequestColumns
    columns: IntArray
    outputs: int


def forward_batch(tree: TokenTree, parts: Sequence[ForwardPart]) -> TreeBatch:
    """Joins the parts of all requests, each of at least one column, into one forward."""
    device = tree.token.device
    counts = [len(part.columns) for part in parts]
    ends = np.cumsum(counts)
    slots, positions, visible, outputs = (
        torch.from_numpy(np.concatenate(rows)).to(device)
        for rows in (
            [part.request.slots[part.columns] for part in parts],
            [part.request.positions(part.columns) for part in parts],
            [part.request.visible(part.columns) for part in parts],
            [np.arange(end - part.outputs, end) for end, part in zip(ends, parts, strict=True)],
        )
    )
    return TreeBatch(
        tokens=tree.token[slots],
        positions=positions,
        slots=slots,
        outputs=outputs,
        attention=build_layout(
            keys=[part.request.slots[: part.columns.max() + 1] for part in parts],
            query_counts=counts,
            visible=visible,
            ancestors=tree.ancestors[slots],
        ),
    )
