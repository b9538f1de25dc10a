"""Drafters grow the token tree with nodes that the target may want: by a draft model's beam, or by the trie alone.

Invariant: a drafter only adds nodes. It never touches a node that is there, so whatever it guesses, the target's verdict stands on the same
ground. Draft and target number their key/value slots alike: a node has one slot, and each model keeps its own keys and values there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.columns import ForwardPart, RequestColumns, forward_batch
from drafting.expand import Frontier, children, continuations, dead_keys, expand_beam
from drafting.plan import RoundPlan
from drafting.tree import TokenTree, TreeModel
from drafting.trie import ItemTrie

IntArray = npt.NDArray[np.int64]
Allocate = Callable[[int], IntArray]


@dataclass
class DraftTask:
    """One request's round.

    Attributes:
        columns: the request's tokens; drafted nodes are appended.
        beam: the columns of the prefixes that the target has decided.
        dead_nodes: ascending trie nodes that must not be entered.
        allocate: takes key/value slots.
        frontier: the columns below which the next level grows; the beam at first.
    """

    columns: RequestColumns
    beam: IntArray
    dead_nodes: Tensor
    plan: RoundPlan
    allocate: Allocate
    frontier: IntArray = field(init=False)

    def __post_init__(self) -> None:
        self.frontier = self.beam

    @property
    def frontier_slots(self) -> IntArray:
        return self.columns.slots[self.frontier]

    @property
    def next_depth(self) -> int:
        """The depth of the level that grows below the frontier."""
        return int(self.columns.depths[self.frontier[0]]) + 1

    def append(self, count: int) -> tuple[IntArray, IntArray]:
        """Allocates the next level's nodes, makes them the frontier, and returns their slots and columns."""
        slots = self.allocate(count)
        self.frontier = self.columns.append(slots, self.next_depth)
        return slots, self.frontier


class TrieDrafter:
    """Drafts every child of the frontier; needs no model."""

    def __init__(self, tree: TokenTree, trie: ItemTrie) -> None:
        self._tree = tree
        self._trie = trie

    def grow(self, tasks: Sequence[DraftTask]) -> None:
        """Adds all valid children of the tasks' frontiers."""
        frontier = Frontier.of([task.frontier_slots for task in tasks], self._tree.token.device)
        dead = dead_keys([task.dead_nodes for task in tasks], self._trie)
        parents = self._tree.trie_node[frontier.slots]
        nodes, exists = children(self._trie, parents, most_children(self._trie, tasks), frontier.requests, dead)
        rows, places = exists.nonzero(as_tuple=True)
        counts = torch.bincount(frontier.requests[rows], minlength=len(tasks)).tolist()
        parent_slots = frontier.slots[rows]
        add_level(self._tree, self._trie, tasks, counts, parent_slots, nodes[rows, places], self._tree.score[parent_slots])


class BeamDrafter:
    """Drafts the beam of a draft model, all requests in one forward per level."""

    def __init__(self, tree: TokenTree, trie: ItemTrie, model: TreeModel) -> None:
        """`model` must live on the tree's device and have a slot for every slot of the tree."""
        self._tree = tree
        self._trie = trie
        self._model = model

    def grow(self, tasks: Sequence[DraftTask], widths: Sequence[int]) -> None:
        """Adds to each task the `widths` best continuations of its frontier.

        The draft's log-probabilities are added to the target's scores of the beam, so the draft ranks as the target would.
        """
        device = self._tree.token.device
        parts = [self._part(task) for task in tasks]
        logits = self._model.score(forward_batch(self._tree, parts))
        for part in parts:
            part.request.drafted[part.columns] = True
        frontier = Frontier.of([task.frontier_slots for task in tasks], device)
        candidates = continuations(
            self._trie,
            self._tree.trie_node[frontier.slots],
            logits,
            most_children(self._trie, tasks),
            frontier.requests,
            dead_keys([task.dead_nodes for task in tasks], self._trie),
        )
        selection = expand_beam(candidates, self._tree.score[frontier.slots], frontier, max(widths))
        found = (selection.nodes >= 0).sum(1).tolist()
        kept = [min(width, count) for width, count in zip(widths, found, strict=True)]
        requests = torch.from_numpy(np.repeat(np.arange(len(tasks)), kept)).to(device)
        ranks = torch.from_numpy(np.concatenate([np.arange(count) for count in kept])).to(device)
        chosen = (selection.parents[requests, ranks], selection.nodes[requests, ranks], selection.scores[requests, ranks])
        add_level(self._tree, self._trie, tasks, kept, *chosen)

    def _part(self, task: DraftTask) -> ForwardPart:
        """The frontier, and before it whatever of the request's past the draft has not computed."""
        columns, depth = task.columns, task.next_depth - 1
        earlier = columns.depths < depth if depth else np.arange(len(columns.depths)) < columns.root
        past = np.flatnonzero(earlier & ~columns.drafted)
        return ForwardPart(columns, np.concatenate([past, task.frontier]), len(task.frontier))


def most_children(trie: ItemTrie, tasks: Sequence[DraftTask]) -> int:
    """A bound on the children of every node in the tasks' frontiers."""
    return max(trie.max_children[task.next_depth - 1] for task in tasks)


def add_level(
    tree: TokenTree,
    trie: ItemTrie,
    tasks: Sequence[DraftTask],
    counts: Sequence[int],
    parents: Tensor,
    trie_nodes: Tensor,
    scores: Tensor,
) -> None:
    """Appends `counts` nodes to each task; the tensors hold all tasks' nodes in order."""
    depths = [task.next_depth for task in tasks]
    added = [task.append(count) for task, count in zip(tasks, counts, strict=True)]
    slots, columns, depth = (
        torch.from_numpy(np.concatenate(arrays)).to(parents.device)
        for arrays in ([slots for slots, _ in added], [columns for _, columns in added], [np.repeat(depths, counts)])
    )
    tokens = trie.token[trie_nodes]
    tree.add_nodes(slots, parents=parents, tokens=tokens, trie_nodes=trie_nodes, scores=scores, depths=depth, columns=columns)
