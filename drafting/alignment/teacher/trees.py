"""Teacher trees: the prompts for which a target is asked for lists, and its lists as trees.

Invariant: a tree has every prefix of every list once, the root first and then level by level, so a prefix that lists share is computed and
learnt once.
"""

from dataclasses import dataclass

import numpy as np

from drafting.alignment.data.interactions import Interactions
from drafting.alignment.data.reach import Reach
from drafting.alignment.data.windows import Windows
from drafting.alignment.levels import LevelCodes
from drafting.alignment.teacher.taken import TakenCodes
from drafting.alignment.tree_batch import TokenWindows
from drafting.array_types import IntArray
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.user_state import UserState
from drafting.trie.arrays import offsets_of, ranges
from drafting.trie.item_trie import ROOT, ItemTrie


@dataclass(frozen=True)
class PromptWindows(TokenWindows):
    """Windows of tokens, and the positions in them where lists are searched.

    Attributes:
        users: for each tree, what its prompt knows of the user.
    """

    users: list[UserState]


def prompt_windows(
    interactions: Interactions, windows: Windows, builder: PromptBuilder, identifiers: IntArray, trees: int
) -> PromptWindows:
    """Tokenise windows; in each of them, lists are searched at the newest `trees` items that are to be predicted."""
    length = identifiers.shape[1]
    reach = Reach(interactions, builder.form.kinds)

    def state(user: int, first: int, last: int) -> UserState:
        return interactions.state(user, reach.known(user, first, last), last)

    texts = [
        np.concatenate([builder.build(state(user, first, last)), identifiers[interactions.items[last]]])
        for user, first, last in zip(windows.owners.tolist(), windows.first.tolist(), windows.last.tolist(), strict=True)
    ]
    lengths = np.array([len(text) for text in texts], np.int64)
    per_window = np.minimum(windows.scored, trees)
    owner = np.repeat(np.arange(len(texts)), per_window)
    age = ranges(np.zeros_like(per_window), per_window)
    asked = zip(windows.owners[owner].tolist(), windows.first[owner].tolist(), (windows.last[owner] - age).tolist(), strict=True)
    return PromptWindows(
        tokens=np.concatenate(texts) if texts else np.empty(0, np.int64),
        token_offsets=offsets_of(lengths),
        answers=windows.scored * length,
        tree_offsets=offsets_of(per_window),
        tree_root=lengths[owner] - length * (age + 1) - 1,
        users=[state(*each) for each in asked],
    )


@dataclass(frozen=True)
class ListTrees:
    """The prefixes of lists as trees, in CSR form.

    Attributes:
        offsets: `[trees + 1]`, first node of each tree.
        trie_node: `[nodes]`, node of the catalog's trie; the root of a tree is the root of the trie.
        parent: `[nodes]`, position of the parent in its tree; 0 for the root.
        taken: the codes, each of the node's level, with which lists continue.
        visits: `[nodes]` int64, how many of the other lists, which the target did not choose, have the node's prefix.
    """

    offsets: IntArray
    trie_node: IntArray
    parent: IntArray
    taken: TakenCodes
    visits: IntArray


def list_trees(lists: IntArray, visited: IntArray, trie: ItemTrie, levels: LevelCodes) -> ListTrees:
    """Fold lists into trees.

    Args:
        lists: `[trees, lists]`, catalog indices of the target's lists; -1 where there is none.
        visited: `[trees, more]`, other lists whose prefixes become nodes although the target did not choose them.
    """
    every = np.concatenate([lists, visited], axis=1)
    leaves = trie.leaf_of_item[np.maximum(every, 0)]
    below = trie.paths(leaves.reshape(-1)).reshape(*every.shape, trie.depth)
    paths = np.concatenate([np.full((*every.shape, 1), ROOT), below], axis=2)
    keys = np.arange(len(every))[:, None, None] * trie.nodes + paths[:, :, :-1]
    above = np.concatenate([keys[:, :, :1], keys[:, :, :-1]], axis=2)
    exists = np.broadcast_to((every >= 0)[:, :, None], keys.shape)
    distinct, first = np.unique(keys[exists], return_index=True)
    owner, trie_node = np.divmod(distinct, trie.nodes)
    offsets = np.searchsorted(owner, np.arange(len(every) + 1)).astype(np.int64)
    parent = np.searchsorted(distinct, above[exists][first]) - offsets[owner]

    tokens = trie.token.cpu().numpy()
    listed = lists >= 0
    nodes = np.searchsorted(distinct, keys[:, : lists.shape[1]][listed])
    continued = tokens[paths[:, : lists.shape[1], 1:][listed]]
    codes = np.stack([levels.codes(level, continued[:, level]) for level in range(trie.depth)], axis=1)
    taken = TakenCodes.count(len(distinct), nodes.reshape(-1), codes.reshape(-1), levels.widest)
    visits = np.bincount(np.searchsorted(distinct, keys[:, lists.shape[1] :][visited >= 0]).reshape(-1), minlength=len(distinct))
    return ListTrees(offsets, trie_node, parent, taken, visits)


def most_nodes(trie: ItemTrie, beams: int) -> int:
    """The largest possible number of nodes of a tree of `beams` lists."""
    return sum(min(beams, trie.level_size(depth)) for depth in range(trie.depth))


def most_taken(trie: ItemTrie, beams: int) -> int:
    """The largest possible number of codes with which `beams` lists continue from one node."""
    return min(beams, max(trie.max_children))
