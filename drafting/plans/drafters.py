"""Drafters grow the token tree with nodes that the target may want: by a draft model's beam, or by the trie alone.

Invariant: a drafter only adds nodes; those that an earlier round has drafted are used again instead of being added twice. The target
therefore verifies all drafts in the same tree. Draft and target use the same numbers of key/value slots: a node has one slot, and each
model keeps its own keys and values there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from drafting.array_types import BoolArray, FloatArray, IntArray
from drafting.beam.expand import Frontier, Selection, expand_beam
from drafting.beam.forward import ForwardPart, forward_batch
from drafting.beam.gumbel import Stream
from drafting.beam.model import TreeModel
from drafting.beam.ranking import BatchRules, continuation_log_probs, rank
from drafting.beam.rule import SearchRule
from drafting.beam.tree import SequenceState, TokenTree, to_device
from drafting.device import concat, find_in_array, on_device, on_host
from drafting.plans.plan import Action, DraftRound
from drafting.trie.arrays import children_of
from drafting.trie.eligibility import BatchEligibility, Eligibility
from drafting.trie.item_trie import ItemTrie


class DraftedSearch(Protocol):
    """The part of a search that drafting uses; see `verification.search.BeamSearch`."""

    sequence: SequenceState
    eligibility: Eligibility
    rule: SearchRule
    beam: IntArray
    ancestors: IntArray
    widths: tuple[int, ...]
    depth: int
    draft_forwards: int
    drafted_nodes: int
    drafted_by: set[str]


@dataclass
class DraftTask:
    """One search's round.

    Attributes:
        round: state of the drafting in this round.
        action: action for the next level.
        allocate: takes key/value slots.
        frontier: indices of the prefixes below which the next level grows; the beam at first.
    """

    search: DraftedSearch
    round: DraftRound
    action: Action
    allocate: Callable[[int], IntArray]
    frontier: IntArray = field(init=False)

    def __post_init__(self) -> None:
        self.frontier = self.search.beam

    @property
    def frontier_slots(self) -> IntArray:
        """`[frontier]` int64."""
        return self.search.sequence.slots[self.frontier]

    @property
    def forward_part(self) -> ForwardPart:
        """The frontier, preceded by all tokens before it that the draft has not computed."""
        sequence = self.search.sequence
        past = np.concatenate([np.arange(sequence.root), self.search.ancestors])
        return ForwardPart(sequence, np.concatenate([past[sequence.drafted[past] == 0], self.frontier]), len(self.frontier))

    def extend(self, trie_nodes: IntArray) -> BoolArray:
        """Make nodes of the next depth the frontier; those that an earlier round has left there are taken up again.

        Returns:
            `[nodes]` bool, which of them are new.
        """
        sequence, depth = self.search.sequence, self.round.next_depth
        known = np.flatnonzero(sequence.depths == depth)
        indices = find_in_array(trie_nodes, sequence.trie_nodes[known])
        new: BoolArray = indices < 0
        added = int(np.count_nonzero(new))
        self.frontier = np.empty(len(new), np.int64)
        self.frontier[~new] = known[indices[~new]]
        self.frontier[new] = sequence.append(self.allocate(added), depth, trie_nodes[new])
        self.search.drafted_nodes += added
        self.round.drafted += added
        self.round.levels += 1
        self.round.nodes = len(self.frontier)
        return new


class DraftNotFinite(RuntimeError):
    """The draft model has gone wrong: what it says can't be compared."""


@dataclass(frozen=True)
class Proposals:
    """A draft model's proposals for the next level of some requests.

    Attributes:
        selection: the best continuations of each request's frontier, best first.
        nodes, scores: `[requests, proposals]` int64 and float32, the selection's on the host; -1 and -inf pad.
        tokens: tokens of the draft's forward.
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

    def draft(self, tasks: Sequence[DraftTask]) -> None:
        """Add all eligible children of the tasks' frontiers."""
        above = concat([task.search.sequence.trie_nodes[task.frontier] for task in tasks])
        children, rows = children_of(self._trie.first_child, above)
        ends = np.cumsum([len(task.frontier) for task in tasks])
        nodes = np.split(children, np.searchsorted(rows, ends[:-1]))
        if any(task.search.eligibility.limited for task in tasks):
            allowed = [task.search.eligibility.allowed(below) for task, below in zip(tasks, nodes, strict=True)]
            nodes, rows = [below[kept] for below, kept in zip(nodes, allowed, strict=True)], rows[concat(allowed)]
        parents = concat([task.frontier_slots for task in tasks])[rows]
        _add_level(self._tree, self._trie, tasks, nodes, on_device(parents, self._tree.token.device))


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
        # Row per slot: cumulative log-probabilities of a node's continuations by the draft; only relaxed searches ask.
        self._log_probs: Tensor | None = None

    def propose(self, tasks: Sequence[DraftTask], count: int) -> Proposals:
        """The `count` best continuations of each task's frontier, after one forward of the draft.

        Raises:
            DraftNotFinite: the draft's logits are not finite.
        """
        device = self._tree.token.device
        parts = [task.forward_part for task in tasks]
        batch = forward_batch(self._tree, parts, self.model.has_encoder)
        logits = self.model.score(batch)
        for part in parts:
            part.sequence.drafted[part.indices] = 1
        rules = BatchRules.of([task.search.rule for task in tasks], device)
        beams = [task.search.sequence.beam_fields(task.frontier) for task in tasks]
        frontier = Frontier.of(self._tree, beams, sampled=rules is not None)
        eligible = BatchEligibility.of([task.search.eligibility for task in tasks], self._trie.nodes, frontier.sizes)
        width = max(self._trie.max_children[task.round.next_depth - 1] for task in tasks)
        log_probs = continuation_log_probs(self._trie, frontier.trie_nodes, logits, width, eligible)
        first_child = self._trie.child_offsets.index_select(0, frontier.trie_nodes)
        candidates = rank(frontier, first_child, log_probs, rules, Stream.DRAFT)
        if rules is not None:
            self._keep(frontier.slots, candidates.cum_log_probs)
        selection = expand_beam(candidates, count)
        nodes, scores, first = on_host([selection.nodes, selection.ranking, log_probs[:, 0]])
        if np.isnan(first).any():
            raise DraftNotFinite("The draft's scores are not finite (NaN or infinite).")
        return Proposals(selection, nodes, scores, batch.size)

    def accept(self, tasks: Sequence[DraftTask], proposals: Proposals, widths: IntArray) -> None:
        """Add the best `widths` proposals of each task."""
        device = self._tree.token.device
        requests = on_device(np.repeat(np.arange(len(tasks)), widths), device)
        ranks = on_device(np.concatenate([np.arange(width) for width in widths]), device)
        selected = proposals.selection
        nodes = [row[:width] for row, width in zip(proposals.nodes, widths, strict=True)]
        slots = _add_level(self._tree, self._trie, tasks, nodes, selected.parent_slots[requests, ranks])
        scores = None if selected.scores is None else selected.scores[requests, ranks]
        self._tree.set_scores(slots, selected.cum_log_probs[requests, ranks], scores)

    def cum_log_probs(self, slots: Tensor, width: int) -> Tensor | None:
        """`[rows, width]` float32 of the continuations of nodes that the draft has scored; None if it has for no sampled search."""
        return None if self._log_probs is None else self._log_probs[slots, :width]

    def close(self) -> None:
        """Free the model."""
        self.model.close()

    def _keep(self, slots: Tensor, cum_log_probs: Tensor) -> None:
        if self._log_probs is None:
            widest = max(self._trie.max_children)
            self._log_probs = torch.full((len(self._tree.token), widest), float("-inf"), device=slots.device)
        self._log_probs[slots, : cum_log_probs.shape[1]] = cum_log_probs


def _add_level(tree: TokenTree, trie: ItemTrie, tasks: Sequence[DraftTask], trie_nodes: Sequence[IntArray], parents: Tensor) -> Tensor:
    """Put the next level below each task's frontier: known nodes are taken up again, the others added.

    Args:
        trie_nodes: nodes to add, of each task.
        parents: `[nodes]` int64, the slots of all these nodes' parents in order.

    Returns:
        `[nodes]` int64 slots.
    """
    device = parents.device
    new = [task.extend(nodes) for task, nodes in zip(tasks, trie_nodes, strict=True)]
    added = [task.search.sequence.node_fields(task.frontier[fresh]) for task, fresh in zip(tasks, new, strict=True)]
    slots, nodes, _, depths, indices = to_device(added, device)
    if not (fresh := concat(new)).all():
        parents = parents.index_select(0, on_device(np.flatnonzero(fresh), device))
    tree.add_nodes(slots, parents=parents, tokens=trie.token.index_select(0, nodes), depths=depths, indices=indices)
    return on_device(concat([task.frontier_slots for task in tasks]), device)
