"""Drafters grow the token tree with nodes that the target may want: by a draft model's beam, or by the trie alone.

Invariant: a drafter adds nodes and says what it thinks of them. What a node is never changes, and what an earlier round has drafted is
taken up again instead of being added twice; so whatever it guesses, the target's verdict stands on the same ground. Draft and target number
their key/value slots alike: a node has one slot, and each model keeps its own keys and values there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.beam.expand import Frontier, Selection, continuations, expand_beam, places_of
from drafting.beam.gumbel import Stream
from drafting.beam.ranking import BatchRules, Ratings, rank
from drafting.beam.rule import SearchRule
from drafting.beam.sequence import ForwardPart, SequenceState, forward_batch, to_device
from drafting.beam.tree import TokenTree, TreeModel
from drafting.device import concat, on_device, on_host
from drafting.plans.plan import DraftRound
from drafting.trie.arrays import children_of
from drafting.trie.eligibility import BatchEligibility, Eligibility
from drafting.trie.item_trie import ItemTrie

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
        round: how far the round has come.
        allocate: takes key/value slots.
        frontier: the columns below which the next level grows; the beam at first.
    """

    columns: SequenceState
    beam: IntArray
    ancestors: IntArray
    eligibility: Eligibility
    rule: SearchRule
    round: DraftRound
    allocate: Allocate
    frontier: IntArray = field(init=False)

    def __post_init__(self) -> None:
        self.frontier = self.beam

    @property
    def frontier_slots(self) -> IntArray:
        return self.columns.slots[self.frontier]

    def extend(self, trie_nodes: IntArray) -> npt.NDArray[np.bool_]:
        """Makes nodes of the next depth the frontier; those that an earlier round has left there are taken up again.

        Returns:
            `[nodes]` bool, which of them are new.
        """
        depth = self.round.next_depth
        there = np.flatnonzero(self.columns.depths == depth)
        places = places_of(trie_nodes, self.columns.trie_nodes[there])
        new: npt.NDArray[np.bool_] = places < 0
        added = int(np.count_nonzero(new))
        self.frontier = np.empty(len(new), np.int64)
        self.frontier[~new] = there[places[~new]]
        self.frontier[new] = self.columns.append(self.allocate(added), depth, trie_nodes[new])
        self.round.drafted += added
        self.round.levels += 1
        self.round.nodes = len(self.frontier)
        return new


@dataclass(frozen=True)
class Proposals:
    """What a draft model proposes for the next level of some requests.

    Attributes:
        selection: the best continuations of each request's frontier, best first.
        nodes, scores: `[requests, proposals]` int64 and float32, the selection's on the host; -1 and -inf pad.
        tokens: in the draft's forward.
    """

    selection: Selection
    nodes: IntArray
    scores: FloatArray
    tokens: int


class TrieDrafter:
    """Drafts every child of the frontier; needs neither a model nor anything from the device."""

    def __init__(self, tree: TokenTree, trie: ItemTrie) -> None:
        self._tree = tree
        self._trie = trie

    def grow(self, tasks: Sequence[DraftTask]) -> None:
        """Adds all valid children of the tasks' frontiers."""
        above = concat([task.columns.trie_nodes[task.frontier] for task in tasks])
        children, rows = children_of(self._trie.arrays.first_child, above)
        ends = np.cumsum([len(task.frontier) for task in tasks])
        nodes = np.split(children, np.searchsorted(rows, ends[:-1]))
        if any(task.eligibility.limited for task in tasks):
            allowed = [task.eligibility.allowed(below) for task, below in zip(tasks, nodes, strict=True)]
            nodes, rows = [below[kept] for below, kept in zip(nodes, allowed, strict=True)], rows[concat(allowed)]
        parents = concat([task.frontier_slots for task in tasks])[rows]
        add_level(self._tree, self._trie, tasks, nodes, on_device(parents, self._tree.token.device))


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
            on_device(concat([part.trie_nodes for part in parts]), device),
            logits,
            max(self._trie.max_children[task.round.next_depth - 1] for task in tasks),
            BatchEligibility.of([task.eligibility for task in tasks], self._trie.nodes, frontier.sizes),
        )
        rules = BatchRules.of([task.rule for task in tasks], device)
        candidates = rank(found, Ratings.of(self._tree, frontier.slots, rules), frontier, rules, Stream.DRAFT)
        if rules is not None:
            self._keep_totals(frontier, candidates.log_probs)
        selection = expand_beam(candidates, frontier, count)
        nodes, scores = on_host([selection.nodes, selection.scores])
        return Proposals(selection, nodes, scores, len(batch.tokens))

    def keep(self, tasks: Sequence[DraftTask], proposals: Proposals, widths: IntArray) -> None:
        """Adds the best `widths` proposals of each task."""
        device = self._tree.token.device
        requests = on_device(np.repeat(np.arange(len(tasks)), widths), device)
        ranks = on_device(np.concatenate([np.arange(width) for width in widths]), device)
        chosen = proposals.selection
        nodes = [row[:width] for row, width in zip(proposals.nodes, widths, strict=True)]
        slots = add_level(self._tree, self._trie, tasks, nodes, chosen.parents[requests, ranks])
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


def add_level(tree: TokenTree, trie: ItemTrie, tasks: Sequence[DraftTask], trie_nodes: Sequence[IntArray], parents: Tensor) -> Tensor:
    """Puts the next level below each task's frontier: nodes that are there already are taken up, the others added.

    Args:
        trie_nodes: of each task.
        parents: `[nodes]` int64, the slots of all these nodes' parents in order.

    Returns:
        `[nodes]` int64 slots.
    """
    device = parents.device
    new = [task.extend(nodes) for task, nodes in zip(tasks, trie_nodes, strict=True)]
    added = to_device([task.columns.node_rows(task.frontier[fresh]) for task, fresh in zip(tasks, new, strict=True)], device)
    slots, nodes, depths, columns = added
    if not (fresh := concat(new)).all():
        parents = parents.index_select(0, on_device(np.flatnonzero(fresh), device))
    tree.add_nodes(slots, parents=parents, tokens=trie.token.index_select(0, nodes), depths=depths, columns=columns)
    return on_device(concat([task.frontier_slots for task in tasks]), device)
