"""Teacher trees: the prompts that a target is asked about, and its lists as trees that hang from them.

Invariant: a tree holds every prefix of every list once, its root first and then level by level, so prefixes that lists share are learnt
from and paid for once.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drafting.alignment.data.interactions import Interactions
from drafting.alignment.data.samples import Windows
from drafting.alignment.levels import LevelCodes
from drafting.alignment.tree_batch import TreeWindows, ranges
from drafting.prompt import PromptBuilder
from drafting.trie.item_trie import ROOT, ItemTrie

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PromptWindows:
    """Windows as tokens, and the places in them where lists are asked for.

    Attributes:
        tokens, token_offsets, answers, tree_offsets, tree_root: as in `TreeWindows`.
        histories: per tree, the catalog indices that its prompt stands for, oldest first.
    """

    tokens: IntArray
    token_offsets: IntArray
    answers: IntArray
    tree_offsets: IntArray
    tree_root: IntArray
    histories: list[list[int]]


def prompt_windows(
    interactions: Interactions, windows: Windows, builder: PromptBuilder, identifiers: IntArray, trees: int
) -> PromptWindows:
    """Write out the windows and chooses, in each, the newest `trees` items to be predicted as places for lists."""
    items, length = interactions.items, identifiers.shape[1]
    texts = [
        np.concatenate([builder.build(items[first:last].tolist()), identifiers[items[last]]])
        for first, last in zip(windows.first.tolist(), windows.last.tolist(), strict=True)
    ]
    lengths = np.array([len(text) for text in texts], np.int64)
    per_window = np.minimum(windows.scored, trees)
    owner = np.repeat(np.arange(len(texts)), per_window)
    age = ranges(np.zeros_like(per_window), per_window)
    predicted = windows.last[owner] - age
    return PromptWindows(
        tokens=np.concatenate(texts) if texts else np.empty(0, np.int64),
        token_offsets=_offsets(lengths),
        answers=windows.scored * length,
        tree_offsets=_offsets(per_window),
        tree_root=lengths[owner] - length * (age + 1) - 1,
        histories=[items[a:b].tolist() for a, b in zip(windows.first[owner].tolist(), predicted.tolist(), strict=True)],
    )


@dataclass(frozen=True)
class ListTrees:
    """The prefixes of lists as trees.

    Attributes:
        offsets: `[trees + 1]`.
        trie_node: `[nodes]`; the root of a tree is the trie's.
        parent: `[nodes]`, the parent's place in its tree; the root's own is 0.
        taken: `[nodes, codes]` int16, how many lists go on from a node with each code of its level.
    """

    offsets: IntArray
    trie_node: IntArray
    parent: IntArray
    taken: npt.NDArray[np.int16]


def list_trees(lists: IntArray, visited: IntArray, trie: ItemTrie, levels: LevelCodes) -> ListTrees:
    """Fold lists into trees.

    Args:
        lists: `[trees, lists]`, catalog indices of the target's lists; -1 where there is none.
        visited: `[trees, more]`, further lists whose prefixes shall be nodes although the target does not take them.
    """
    every = np.concatenate([lists, visited], axis=1)
    leaves = trie.leaf_of_item[np.maximum(every, 0)]
    below = trie.arrays.paths(leaves.reshape(-1)).reshape(*every.shape, trie.depth)
    paths = np.concatenate([np.full((*every.shape, 1), ROOT), below], axis=2)
    keys = np.arange(len(every))[:, None, None] * trie.nodes + paths[:, :, :-1]
    above = np.concatenate([keys[:, :, :1], keys[:, :, :-1]], axis=2)
    exists = np.broadcast_to((every >= 0)[:, :, None], keys.shape)
    distinct, first = np.unique(keys[exists], return_index=True)
    owner, trie_node = np.divmod(distinct, trie.nodes)
    offsets = np.searchsorted(owner, np.arange(len(every) + 1)).astype(np.int64)
    parent = np.searchsorted(distinct, above[exists][first]) - offsets[owner]

    taken = np.zeros((len(distinct), levels.widest), np.int16)
    tokens = trie.token.cpu().numpy()
    listed = lists >= 0
    for level in range(trie.depth):
        rows = np.searchsorted(distinct, keys[:, : lists.shape[1], level][listed])
        next_nodes = paths[:, : lists.shape[1], level + 1][listed]
        np.add.at(taken, (rows, levels.places(level, tokens[next_nodes])), 1)
    return ListTrees(offsets, trie_node, parent, taken)


def most_nodes(trie: ItemTrie, beams: int) -> int:
    """The most nodes that a tree of so many lists can have."""
    return sum(min(beams, trie.level_size(depth)) for depth in range(trie.depth))


def tree_windows(prompts: PromptWindows, trees: ListTrees, trie: ItemTrie) -> TreeWindows:
    """Hang the trees into the windows."""
    return join_windows(prompts, trees.offsets, trees.trie_node, trees.parent, trie)


def join_windows(prompts: PromptWindows, node_offsets: IntArray, trie_node: IntArray, parent: IntArray, trie: ItemTrie) -> TreeWindows:
    """As `tree_windows`, from the parts that are stored: a node's place in the trie says its token and its depth."""
    return TreeWindows(
        tokens=prompts.tokens,
        token_offsets=prompts.token_offsets,
        answers=prompts.answers,
        tree_offsets=prompts.tree_offsets,
        tree_root=prompts.tree_root,
        node_offsets=node_offsets,
        node_token=trie.token.cpu().numpy()[trie_node],
        node_depth=np.searchsorted(trie.level_starts, trie_node, side="right") - 1,
        node_parent=parent,
    )


def _offsets(counts: IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
