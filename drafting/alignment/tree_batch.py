"""Tree batches for training: windows of a history with trees of candidate identifiers, computed in one forward of any causal model.

Invariant: a node attends to the window's tokens up to the root of its tree, to its ancestors and to itself, at the position that its prefix
has in a plain sequence. The model's output at a node is therefore its output for that prefix alone, but shared tokens are computed once. No
token of the window attends to a node, so the output for the window does not depend on the trees.

All data are arrays over the windows, trees and nodes of a batch; no Python loop runs over tokens or nodes.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch

from drafting.alignment.data.samples import IGNORED_LABEL, Batch
from drafting.array_types import IntArray
from drafting.trie.arrays import ranges
from drafting.trie.item_trie import ItemTrie


@dataclass(frozen=True)
class TokenWindows:
    """Windows of tokens in CSR form, and the positions in them where trees begin.

    Attributes:
        tokens: `[tokens]`, the prompts and answers of all windows.
        token_offsets: `[windows + 1]`, first token of each window.
        answers: `[windows]`, number of tokens at the end of each window that are to be predicted.
        tree_offsets: `[windows + 1]`, first tree of each window.
        tree_root: `[trees]`, position of the root in its window.
    """

    tokens: IntArray
    token_offsets: IntArray
    answers: IntArray
    tree_offsets: IntArray
    tree_root: IntArray


@dataclass(frozen=True)
class TreeWindows(TokenWindows):
    """Windows and their trees in CSR form.

    The first node of a tree is its root, the last token of a prompt inside the window; it adds no token to the batch.

    Attributes:
        node_offsets: `[trees + 1]`, first node of each tree.
        node_token: `[nodes]`, token of each node; that of a root is not used.
        node_depth: `[nodes]`, depth of each node, 0 for a root.
        node_parent: `[nodes]`, position of the parent among the nodes of its tree; a root is its own parent.
    """

    node_offsets: IntArray
    node_token: IntArray
    node_depth: IntArray
    node_parent: IntArray

    @classmethod
    def of(cls, windows: TokenWindows, node_offsets: IntArray, trie_node: IntArray, parent: IntArray, trie: ItemTrie) -> "TreeWindows":
        """Add trees to windows; `trie_node` `[nodes]`, the node in the catalog's trie, gives token and depth."""
        return cls(
            **{field.name: vars(windows)[field.name] for field in fields(TokenWindows)},
            node_offsets=node_offsets,
            node_token=trie.token.cpu().numpy()[trie_node],
            node_depth=np.searchsorted(trie.level_starts, trie_node, side="right") - 1,
            node_parent=parent,
        )

    def __len__(self) -> int:
        return len(self.answers)

    def widths(self, trees: bool) -> IntArray:
        """Number of tokens of each window in a batch, `[windows]`, with or without its trees."""
        lengths = np.diff(self.token_offsets)
        if not trees:
            return lengths
        return lengths + np.diff(self.node_offsets[self.tree_offsets]) - np.diff(self.tree_offsets)


@dataclass(frozen=True)
class NodeColumns:
    """Positions of the nodes in a batch; all arrays are `[nodes]`, window by window, tree by tree, roots included.

    Attributes:
        index: index of the node in `TreeWindows`.
        row: row of the batch.
        column: column of the batch.
        root: column of the root of the node's tree.
        tree: number of the node's tree in the batch.
        parent: number of the node's parent among the nodes of the batch.
    """

    index: IntArray
    row: IntArray
    column: IntArray
    root: IntArray
    tree: IntArray
    parent: IntArray


def plain_batch(windows: TreeWindows, chosen: IntArray, pad_token_id: int) -> Batch:
    """A batch of windows without their trees: `input_ids` and `labels`, `[windows, longest]` int64."""
    lengths = np.diff(windows.token_offsets)[chosen]
    input_ids, labels = _window_rows(windows, chosen, pad_token_id, int(lengths.max()))
    return {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)}


def tree_batch(windows: TreeWindows, chosen: IntArray, pad_token_id: int) -> tuple[Batch, NodeColumns]:
    """A batch of windows with their trees, whose tokens follow those of the window.

    Returns:
        `input_ids`, `labels`, `position_ids` `[windows, longest]` int64 and `attention_mask` `[windows, 1, longest, longest]` float32, 0
        where a token attends to another and -inf elsewhere, which is right whether a model adds masks or looks at them; and the positions
        of the nodes.
    """
    lengths = np.diff(windows.token_offsets)[chosen]
    nodes = place_nodes(windows, chosen, lengths)
    width = int(windows.widths(trees=True)[chosen].max())
    input_ids, labels = _window_rows(windows, chosen, pad_token_id, width)
    columns = np.arange(width)
    positions = np.broadcast_to(columns, input_ids.shape).copy()
    visible = np.where(columns < lengths[:, None], columns + 1, 1)
    depth = windows.node_depth[nodes.index]
    added = depth > 0
    cells = nodes.row[added], nodes.column[added]
    input_ids[cells] = windows.node_token[nodes.index[added]]
    positions[cells] = (nodes.root + depth)[added]
    visible[cells] = nodes.root[added] + 1
    mask = columns < visible[:, :, None]
    ancestor = np.arange(len(nodes.index))
    for _ in range(int(depth.max(initial=0))):
        mask[nodes.row, nodes.column, nodes.column[ancestor]] = True
        ancestor = nodes.parent[ancestor]
    added_mask = np.where(mask[:, None], np.float32(0), np.float32("-inf"))
    batch = {"input_ids": input_ids, "labels": labels, "position_ids": positions, "attention_mask": added_mask}
    return {name: torch.from_numpy(array) for name, array in batch.items()}, nodes


def answer_rows(labels: torch.Tensor) -> torch.Tensor:
    """Rows of the flattened batch whose next token is an answer token, `[answers]` int64, window by window."""
    rows, columns = (labels[:, 1:] != IGNORED_LABEL).nonzero(as_tuple=True)
    return rows * labels.shape[1] + columns


def _window_rows(windows: TreeWindows, chosen: IntArray, pad_token_id: int, width: int) -> tuple[IntArray, IntArray]:
    """Tokens and labels of the windows, `[windows, width]` each, padded on the right."""
    lengths, answers = np.diff(windows.token_offsets)[chosen], windows.answers[chosen]
    input_ids = np.full((len(chosen), width), pad_token_id, np.int64)
    labels = np.full((len(chosen), width), IGNORED_LABEL, np.int64)
    columns = np.arange(width)
    used = columns < lengths[:, None]
    input_ids[used] = windows.tokens[ranges(windows.token_offsets[chosen], lengths)]
    answered = used & (columns >= (lengths - answers)[:, None])
    labels[answered] = input_ids[answered]
    return input_ids, labels


def place_nodes(windows: TreeWindows, chosen: IntArray, lengths: IntArray) -> NodeColumns:
    """Where the nodes of windows stand behind the windows' own tokens.

    Args:
        lengths: `[windows]`, number of the tokens of each chosen window.
    """
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
