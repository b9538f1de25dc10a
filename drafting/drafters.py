"""Drafters grow the token tree with nodes that the target may want: by a draft model's beam, or by the trie alone.

Invariant: a drafter only adds nodes. It never touches a node that is there, and what an earlier round has drafted is taken up again instead
of being added twice; so whatever it guesses, the target's verdict stands on the same ground. Draft and target number their key/value slots
alike: a node has one slot, and each model keeps its own keys and values there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.columns import ForwardPart, RequestColumns, forward_batch
from drafting.eligibility import BatchEligibility, Eligibility
from drafting.expand import Frontier, Selection, children, continuations, expand_beam, find_nodes
from drafting.gumbel import Stream
from drafting.plan import Round
from drafting.ranking import BatchRules, rank
from drafting.rule import SearchRule
from drafting.transfer import on_device
from drafting.tree import TokenTree, TreeModel
from drafting.trie import ItemTrie

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Allocate = Callable[[int], IntArray]


@dataclass
class DraftTask:
    """One request's round.

    Attributes:
        columns: the request's tokens; drafted nodes are appended.
        beam: the columns of the prefixes that the target has decided.
        ancestors: the columns of the shorter prefixes that the target decided before, the beam's ancestors among them.
        eligibility: what the request may be given.
        rule: what the request ranks by.
        place: how far the round has come.
        allocate: takes key/value slots.
        frontier: the columns below which the next level grows; the beam at first.
    """

    columns: RequestColumns
    beam: IntArray
    ancestors: IntArray
    eligibility: Eligibility
    rule: SearchRule
    place: Round
    allocate: Allocate
    frontier: IntArray = field(init=False)

    def __post_init__(self) -> None:
        self.frontier = self.beam

    @property
    def frontier_slots(self) -> IntArray:
        return self.columns.slots[self.frontier]

    @property
    def grown(self) -> IntArray:
        """Columns of the nodes that an earlier round has left at the next depth."""
        return np.flatnonzero(self.columns.depths == self.place.next_depth)

    def extend(self, known: IntArray) -> tuple[IntArray, IntArray]:
        """Makes nodes of the next depth the frontier.

        Args:
            known: `[nodes]` int64, the columns of those that are there already; -1 for a node to add.

        Returns:
            slots and columns of the added ones, in order.
        """
        new = np.flatnonzero(known < 0)
        slots = self.allocate(len(new))
        columns = self.columns.append(slots, self.place.next_depth)
        self.frontier = known.copy()
        self.frontier[new] = columns
        self.place.drafted += len(new)
        self.place.levels += 1
        self.place.nodes = len(self.frontier)
        return slots, columns


@dataclass(frozen=True)
class Proposals:
    """What a draft model proposes for the next level of some requests.

    Attributes:
        selection: the best continuations of each request's frontier, best first.
        scores: `[requests, proposals]` float32, their scores on the host; -inf pads.
        tokens: in the draft's forward.
    """

    selection: Selection
    scores: FloatArray
    tokens: int


class TrieDrafter:
    """Drafts every child of the frontier; needs no model."""

    def __init__(self, tree: TokenTree, trie: ItemTrie) -> None:
        self._tree = tree
        self._trie = trie

    def grow(self, tasks: Sequence[DraftTask]) -> None:
        """Adds all valid children of the tasks' frontiers."""
        frontier = Frontier.of([task.frontier_slots for task in tasks], self._tree.token.device)
        eligible = BatchEligibility.of([task.eligibility for task in tasks], self._trie.nodes, frontier.sizes)
        parents = self._tree.trie_node[frontier.slots]
        nodes, exists = children(self._trie, parents, most_children(self._trie, tasks), eligible)
        rows, places = exists.nonzero(as_tuple=True)
        counts = np.add.reduceat(exists.sum(1).cpu().numpy(), np.cumsum(frontier.sizes) - np.array(frontier.sizes))
        add_level(self._tree, self._trie, tasks, counts, frontier.slots[rows], nodes[rows, places])


class BeamDrafter:
    """Drafts the beam of a draft model, all requests in one forward per level.

    The draft's log-probabilities are added to the target's of the beam, and ranked by the request's own rule, so the draft ranks as the
    target would.
    """

    def __init__(self, tree: TokenTree, trie: ItemTrie, model: TreeModel) -> None:
        """`model` must live on the tree's device and have a slot for every slot of the tree."""
        self._tree = tree
        self._trie = trie
        self.model = model
        # Row per slot: cumulative log-probabilities of a node's continuations, as the draft gave them; only relaxed searches ask.
        self._totals: Tensor | None = None

    def propose(self, tasks: Sequence[DraftTask], count: int) -> Proposals:
        """The `count` best continuations of each task's frontier, after one forward of the draft."""
        device = self._tree.token.device
        parts = [self._part(task) for task in tasks]
        batch = forward_batch(self._tree, parts)
        logits = self.model.score(batch)
        for part in parts:
            part.request.drafted[part.columns] = True
        frontier = Frontier.of([task.frontier_slots for task in tasks], device)
        found = continuations(
            self._trie,
            self._tree.trie_node[frontier.slots],
            logits,
            most_children(self._trie, tasks),
            BatchEligibility.of([task.eligibility for task in tasks], self._trie.nodes, frontier.sizes),
        )
        rules = BatchRules.of([task.rule for task in tasks], device)
        candidates = rank(found, self._tree, frontier, rules, Stream.DRAFT)
        if rules is not None:
            self._keep_totals(frontier, candidates.log_probs)
        selection = expand_beam(candidates, frontier, count)
        return Proposals(selection, selection.scores.cpu().numpy(), len(batch.tokens))

    def keep(self, tasks: Sequence[DraftTask], proposals: Proposals, widths: IntArray) -> None:
        """Adds the best `widths` proposals of each task."""
        device = self._tree.token.device
        requests = on_device(np.repeat(np.arange(len(tasks)), widths), device)
        ranks = on_device(np.concatenate([np.arange(width) for width in widths]), device)
        chosen = proposals.selection
        slots = add_level(self._tree, self._trie, tasks, widths, chosen.parents[requests, ranks], chosen.nodes[requests, ranks])
        scores = chosen.scores[requests, ranks] if chosen.samples else None
        self._tree.rate(slots, chosen.log_probs[requests, ranks], scores)

    def totals(self, slots: Tensor, width: int) -> Tensor:
        """`[rows, width]` cumulative log-probabilities that the draft gave to the continuations of nodes that it has scored."""
        if self._totals is None:
            raise ValueError("The draft has not scored a node of a sampled search yet.")
        return self._totals[slots, :width]

    def close(self) -> None:
        """Frees the model."""
        self.model.close()

    def _part(self, task: DraftTask) -> ForwardPart:
        """The frontier, and before it whatever of its past the draft has not computed."""
        columns = task.columns
        past = np.concatenate([np.arange(columns.root), task.ancestors])
        return ForwardPart(columns, np.concatenate([past[~columns.drafted[past]], task.frontier]), len(task.frontier))

    def _keep_totals(self, frontier: Frontier, totals: Tensor) -> None:
        if self._totals is None:
            widest = max(self._trie.max_children)
            self._totals = torch.full((len(self._tree.token), widest), float("-inf"), device=totals.device)
        self._totals[frontier.slots, : totals.shape[1]] = totals


def most_children(trie: ItemTrie, tasks: Sequence[DraftTask]) -> int:
    """A bound on the children of every node in the tasks' frontiers."""
    return max(trie.max_children[task.place.next_depth - 1] for task in tasks)


def add_level(
    tree: TokenTree, trie: ItemTrie, tasks: Sequence[DraftTask], counts: Sequence[int] | IntArray, parents: Tensor, trie_nodes: Tensor
) -> Tensor:
    """Puts the next level below each task's frontier: nodes that are there already are taken up, the others added.

    Args:
        counts: how many nodes each task gets.
        parents, trie_nodes: `[nodes]` int64, parents' slots and places in the trie, all tasks' in order.

    Returns:
        `[nodes]` int64 slots.
    """
    device = parents.device
    known = _known_columns(tree, tasks, counts, trie_nodes)
    depths = np.repeat([task.place.next_depth for task in tasks], counts)
    new = on_device(np.flatnonzero(np.concatenate(known) < 0), device)
    added = [task.extend(columns) for task, columns in zip(tasks, known, strict=True)]
    slots, columns, depth = (
        on_device(array, device)
        for array in (
            np.concatenate([slots for slots, _ in added]),
            np.concatenate([columns for _, columns in added]),
            depths[np.concatenate(known) < 0],
        )
    )
    tokens = trie.token[trie_nodes[new]]
    tree.add_nodes(slots, parents=parents[new], tokens=tokens, trie_nodes=trie_nodes[new], depths=depth, columns=columns)
    return on_device(np.concatenate([task.frontier_slots for task in tasks]), device)


def _known_columns(tree: TokenTree, tasks: Sequence[DraftTask], counts: Sequence[int] | IntArray, trie_nodes: Tensor) -> list[IntArray]:
    """For each task's nodes, the columns where they stand already, or -1."""
    known = [np.full(count, -1, np.int64) for count in counts]
    offsets = np.cumsum(counts) - counts
    asked, places = [], []
    for row, (task, offset, count) in enumerate(zip(tasks, offsets, counts, strict=True)):
        if len(grown := task.grown) and count:
            there = tree.trie_node[on_device(task.columns.slots[grown], trie_nodes.device)]
            asked.append((row, grown))
            places.append(find_nodes(trie_nodes[None, offset : offset + count], there[None])[0])
    if not asked:
        return known
    # Read in one go: every read waits for all that the device has been given.
    found = (places[0] if len(places) == 1 else torch.cat(places)).cpu().numpy()
    for row, grown in asked:
        here, found = found[: counts[row]], found[counts[row] :]
        known[row] = np.where(here >= 0, grown[here], -1)
    return known
