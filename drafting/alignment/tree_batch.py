"""Tree batches: windows of a history with trees of candidate identifiers hanging from them, as one forward of any causal model.

Invariant: a tree's node sees the window's tokens up to its root, its ancestors and itself, at the position that its prefix would have in a
plain sequence. What a model says of a node is therefore what it says of that prefix alone, but tokens that sequences share are computed
once; and as no token of the window sees a node, what it says of the window does not depend on the trees.

Everything is arrays over all windows, trees and nodes of a batch: no Python loop runs over tokens or nodes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from drafting.alignment.data.samples import IGNORED_LABEL

IntArray = npt.NDArray[np.int64]
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TreeWindows:
    """Windows and their trees, as offset arrays (CSR).

    The first node of a tree is its root, the last token of a prompt inside the window; it adds no token to the batch.

    Attributes:
        tokens: `[tokens]`, prompt and answers of each window.
        token_offsets: `[windows + 1]`.
        answers: `[windows]`, how many of a window's last tokens are to be predicted.
        tree_offsets: `[windows + 1]`.
        tree_root: `[trees]`, the place of the root in its window.
        node_offsets: `[trees + 1]`.
        node_token: `[nodes]`; a root's is never read.
        node_depth: `[nodes]`, 0 for a root.
        node_parent: `[nodes]`, the parent's place among the nodes of its tree; a root is its own.
    """

    tokens: IntArray
    token_offsets: IntArray
    answers: IntArray
    tree_offsets: IntArray
    tree_root: IntArray
    node_offsets: IntArray
    node_token: IntArray
    node_depth: IntArray
    node_parent: IntArray

    def __len__(self) -> int:
        return len(self.answers)

    def widths(self, trees: bool) -> IntArray:
        """Tokens that each window puts into a batch, `[windows]`, with or without its trees."""
        lengths = np.diff(self.token_offsets)
        if not trees:
            return lengths
        return lengths + np.diff(self.node_offsets[self.tree_offsets]) - np.diff(self.tree_offsets)

    def nodes_of(self, window: int) -> slice:
        """Where a window's nodes are."""
        return slice(*self.node_offsets[self.tree_offsets[window : window + 2]].tolist())


@dataclass(frozen=True)
class NodeColumns:
    """Where the nodes of a batch stand in it; all arrays `[nodes]`, window by window, tree by tree, roots included.

    Attributes:
        index: the node's place in `TreeWindows`.
        row: its row of the batch.
        column: its column.
        root: the column of its tree's root.
        tree: which tree of the batch it belongs to.
        parent: which node of the batch its parent is.
    """

    index: IntArray
    row: IntArray
    column: IntArray
    root: IntArray
    tree: IntArray
    parent: IntArray


def ranges(starts: IntArray, counts: IntArray) -> IntArray:
    """The numbers from each start on, as many as its count, joined."""
    ends = np.cumsum(counts)
    first = np.repeat(starts - (ends - counts), counts)
    joined: IntArray = first + np.arange(len(first))
    return joined


def plain_batch(windows: TreeWindows, chosen: IntArray, pad_token_id: int) -> Batch:
    """The windows without their trees: `input_ids` and `labels`, `[windows, longest]`."""
    lengths = np.diff(windows.token_offsets)[chosen]
    input_ids, labels = _window_rows(windows, chosen, pad_token_id, int(lengths.max()))
    return {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)}


def tree_batch(windows: TreeWindows, chosen: IntArray, pad_token_id: int) -> tuple[Batch, NodeColumns]:
    """The windows with their trees, which stand behind the window's tokens.

    Returns:
        `input_ids`, `labels`, `position_ids` `[windows, longest]` int64 and `attention_mask` `[windows, 1, longest, longest]` bool; and
        where the nodes are.
    """
    lengths = np.diff(windows.token_offsets)[chosen]
    nodes = _place_nodes(windows, chosen, lengths)
    width = int(windows.widths(trees=True)[chosen].max())
    input_ids, labels = _window_rows(windows, chosen, pad_token_id, width)
    columns = np.arange(width)
    positions = np.broadcast_to(columns, input_ids.shape).copy()
    visible = np.where(columns < lengths[:, None], columns + 1, 1)
    depth = windows.node_depth[nodes.index]
    added = depth > 0
    places = nodes.row[added], nodes.column[added]
    input_ids[places] = windows.node_token[nodes.index[added]]
    positions[places] = (nodes.root + depth)[added]
    visible[places] = nodes.root[added] + 1
    mask = columns < visible[:, :, None]
    ancestor = np.arange(len(nodes.index))
    for _ in range(int(depth.max(initial=0))):
        mask[nodes.row, nodes.column, nodes.column[ancestor]] = True
        ancestor = nodes.parent[ancestor]
    batch = {"input_ids": input_ids, "labels": labels, "position_ids": positions, "attention_mask": mask[:, None]}
    return {name: torch.from_numpy(array) for name, array in batch.items()}, nodes


def answer_rows(labels: torch.Tensor) -> torch.Tensor:
    """Rows of the flattened batch whose next token is an answer, window by window, `[answers]` int64."""
    rows, columns = (labels[:, 1:] != IGNORED_LABEL).nonzero(as_tuple=True)
    return rows * labels.shape[1] + columns


def _window_rows(windows: TreeWindows, chosen: IntArray, pad_token_id: int, width: int) -> tuple[IntArray, IntArray]:
    """The windows' tokens and labels on the left of rows of `width`."""
    lengths, answers = np.diff(windows.token_offsets)[chosen], windows.answers[chosen]
    input_ids = np.full((len(chosen), width), pad_token_id, np.int64)
    labels = np.full((len(chosen), width), IGNORED_LABEL, np.int64)
    columns = np.arange(width)
    used = columns < lengths[:, None]
    input_ids[used] = windows.tokens[ranges(windows.token_offsets[chosen], lengths)]
    answered = used & (columns >= (lengths - answers)[:, None])
    labels[answered] = input_ids[answered]
    return input_ids, labels


def _place_nodes(windows: TreeWindows, chosen: IntArray, lengths: IntArray) -> NodeColumns:
    trees_per_window = np.diff(windows.tree_offsets)[chosen]
    trees = ranges(windows.tree_offsets[chosen], trees_per_window)
    sizes = np.diff(windows.node_offsets)[trees]
    index = ranges(windows.node_offsets[trees], sizes)
    tree = np.repeat(np.arange(len(trees)), sizes)
    row = np.repeat(np.arange(len(chosen)), trees_per_window)[tree]
    added = windows.node_depth[index] > 0
    before: IntArray = np.cumsum(added) - added
    first_of_window = np.searchsorted(row, np.arange(len(chosen)))
    behind = before - np.append(before, added.sum())[first_of_window][row]
    root = windows.tree_root[trees][tree]
    starts = np.cumsum(sizes) - sizes
    parent = windows.node_parent[index] + starts[tree]
    return NodeColumns(index, row, np.where(added, lengths[row] + behind, root), root, tree, parent)
