"""Drafters grow the token tree with nodes that the target may want: by a draft model's beam, or by the trie alone.

Invariant: a drafter only adds nodes; those that an earlier round has drafted are used again instead of being added twice. The target
therefore verifies all drafts in the same tree. Draft and target use the same numbers of key/value slots: a node has one slot, and each
model keeps its own keys and values there.

Where reading waits for the device, a level is drafted without the host knowing its prefixes: as many nodes as were planned are added. Some
of these may stand for no prefix (they are leaves of the tree, which nothing continues), or for a prefix that an earlier round has left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from drafting.array_types import FloatArray, IntArray
from drafting.beam.continuations import RowKinds, child_mask, continuation_log_probs
from drafting.beam.expand import Frontier, Selection, expand_beams
from drafting.beam.forward import forward_batch
from drafting.beam.gumbel import Stream
from drafting.beam.model import TreeModel
from drafting.beam.ranking import BatchRules, rank
from drafting.beam.rule import Verification
from drafting.beam.tree import UNREAD, SequenceState, TokenTree, to_device
from drafting.device import NEGATIVE_INFINITY, concat, grown, is_async, on_device, on_host
from drafting.plans.raised import Raised
from drafting.plans.task import DraftTask
from drafting.trie.arrays import children_of
from drafting.trie.eligibility import BatchEligibility
from drafting.trie.item_trie import ItemTrie


class DraftNotFinite(RuntimeError):
    """The draft model's scores are NaN or infinite, so that they can't be ranked."""


@dataclass
class Proposals:
    """Proposals for the next level of some requests.

    Attributes:
        selection: the best continuations of each request's frontier, best first.
        ranking: `[requests, proposals]` float32, the scores with bonuses by which the selection is ordered.
        first_log_probs: `[prefixes]` float32, of the first child of each prefix: NaN where the draft's logits are not finite.
        tokens: number of tokens in the draft's forward.
        nodes, scores: `[requests, proposals]` int64 and float32, the trie nodes of `selection` and `ranking` on the host, padded with -1
            and -inf; None until they are read.
        added: where proposals are added before they are read: for each request its sequence, and their indices in it, best first.
        is_finite: False if it was read that the draft's logits are not finite.
    """

    selection: Selection
    ranking: Tensor
    first_log_probs: Tensor
    tokens: int = 0
    nodes: IntArray | None = None
    scores: FloatArray | None = None
    added: list[tuple[SequenceState, IntArray]] = field(default_factory=list)
    is_finite: bool = True

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """What `take` takes, still on the device."""
        return self.selection.nodes, self.ranking, self.first_log_probs

    def take(self, nodes: IntArray, scores: FloatArray, first_log_probs: FloatArray) -> None:
        """Keep what was read of `tensors`, also in the sequences to which proposals were added."""
        self.nodes, self.scores, self.is_finite = nodes, scores, not np.isnan(first_log_probs).any()
        for (sequence, indices), row in zip(self.added, nodes, strict=False):
            sequence.trie_nodes[indices] = row[: len(indices)]

    def check(self) -> None:
        """Raise DraftNotFinite if the draft's logits are not finite, by what was read."""
        if not self.is_finite:
            raise DraftNotFinite("The draft's scores are not finite (NaN or infinite).")


class TrieDrafter:
    """Drafts children of the frontier, all of them where the host knows it; needs no model."""

    def __init__(self, tree: TokenTree, trie: ItemTrie) -> None:
        self._tree = tree
        self._trie = trie

    def draft(self, tasks: Sequence[DraftTask]) -> list[Proposals]:
        """Add all eligible children of the tasks' frontiers; return proposals if any were added that the host has not read."""
        read, unread = [task for task in tasks if task.is_read], [task for task in tasks if not task.is_read]
        if read:
            self._add_all(read)
        return [self._add_best(unread)] if unread else []

    def _add_all(self, tasks: Sequence[DraftTask]) -> None:
        above = concat([task.search.sequence.trie_nodes[task.frontier] for task in tasks])
        children, rows = children_of(self._trie.first_child, above)
        ends = np.cumsum([len(task.frontier) for task in tasks])
        nodes = np.split(children, np.searchsorted(rows, ends[:-1]))
        if any(task.search.eligibility.limited for task in tasks):
            allowed = [task.search.eligibility.allowed(below) for task, below in zip(tasks, nodes, strict=True)]
            nodes, rows = [below[kept] for below, kept in zip(nodes, allowed, strict=True)], rows[concat(allowed)]
        parents = concat([task.frontier_slots for task in tasks])[rows]
        sent = on_device(np.stack([concat(nodes), parents]), self._tree.token.device)
        _add_level(self._tree, self._trie, tasks, nodes, *sent.unbind(0))

    def _add_best(self, tasks: Sequence[DraftTask]) -> Proposals:
        """Add as many children as there is room for, those of the best prefixes first: the host can't know how many there are."""
        widths = np.array([task.most_children(self._trie) for task in tasks])
        frontier, eligible, width = _below(self._tree, self._trie, tasks, sampled=False)
        log_probs = child_mask(self._trie, frontier.trie_nodes, width, eligible)
        first_child = self._trie.child_offsets.index_select(0, frontier.trie_nodes)
        scored = rank(frontier, first_child, log_probs, None, Stream.DRAFT)
        selection = expand_beams(scored, widths.tolist())
        proposals = Proposals(selection, selection.ranking, log_probs[:, 0])
        _add_proposals(self._tree, self._trie, tasks, proposals, widths)
        return proposals


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
        # A row for each slot up to the highest so far: the draft's cumulative log-probabilities of a node's continuations. Only relaxed
        # searches read it.
        self._log_probs: Tensor | None = None

    def propose(self, tasks: Sequence[DraftTask], counts: Sequence[int], raised: Raised) -> Proposals:
        """The best continuations of each task's frontier, after one forward of the draft. They are read at once, unless reading waits.

        Args:
            counts: how many continuations each task wants at least.
            raised: the continuations whose scores are raised, so that they rank higher than by the draft alone.

        Raises:
            DraftNotFinite: the draft's logits are not finite, if they were read.
        """
        device = self._tree.token.device
        parts = []
        for task in tasks:
            parts.append(part := task.forward_part)
            # At once, so that a prompt that two of them share is computed once; keys are written before they are read.
            part.sequence.mark_draft_computed(part.indices)
        batch = forward_batch(self._tree, parts, self.model.has_encoder)
        rows = self.model.score(batch)
        rules = BatchRules.of([task.search.rule for task in tasks], device)
        frontier, eligible, width = _below(self._tree, self._trie, tasks, sampled=rules is not None)
        kinds = RowKinds.of(parts, [task.search.normalise for task in tasks])
        log_probs = continuation_log_probs(self._trie, frontier.trie_nodes, rows, kinds, width, eligible)
        first_log_probs, waits = log_probs[:, 0], is_async(device)
        if waits:
            # Nothing may be looked up outside the trie before the host sees that the draft has gone wrong.
            first_log_probs, log_probs = first_log_probs.clone(), log_probs.masked_fill_(log_probs.isnan(), NEGATIVE_INFINITY)
        first_child = self._trie.child_offsets.index_select(0, frontier.trie_nodes)
        scored = rank(frontier, first_child, log_probs, rules, Stream.DRAFT)
        if any(task.search.rule.verification is Verification.RELAXED for task in tasks):
            self._keep(frontier.slots, scored.cum_log_probs, max(int(task.frontier_slots.max()) for task in tasks))
        selection, ranking = raised.rank(expand_beams(scored, counts), self._trie.nodes)
        proposals = Proposals(selection, ranking, first_log_probs, batch.size)
        if waits:
            return proposals
        proposals.take(*on_host(proposals.tensors))
        proposals.check()
        return proposals

    def accept(self, tasks: Sequence[DraftTask], proposals: Proposals, widths: IntArray) -> None:
        """Add the best `widths` proposals of each task."""
        _add_proposals(self._tree, self._trie, tasks, proposals, widths)

    def cum_log_probs(self, slots: Tensor, width: int) -> Tensor | None:
        """`[rows, width]` float32, the draft's cumulative log-probabilities of continuations; None if it has scored no relaxed search."""
        return None if self._log_probs is None else self._log_probs[slots.clamp(max=len(self._log_probs) - 1), :width]

    def close(self) -> None:
        """Free the model."""
        self.model.close()

    def _keep(self, slots: Tensor, cum_log_probs: Tensor, highest: int) -> None:
        """Keep what the draft says below nodes, `[slots, width]`, to be read again; no slot is higher than `highest`."""
        if self._log_probs is None or highest >= len(self._log_probs):
            table = torch.empty(0, max(self._trie.max_children), device=slots.device) if self._log_probs is None else self._log_probs
            self._log_probs = grown(table, highest + 1, len(self._tree.token))
        self._log_probs[slots, : cum_log_probs.shape[1]] = cum_log_probs


def _add_proposals(tree: TokenTree, trie: ItemTrie, tasks: Sequence[DraftTask], proposals: Proposals, widths: IntArray) -> None:
    """Add the best `widths` proposals of each task."""
    selected, count, known = proposals.selection, proposals.selection.nodes.shape[1], proposals.nodes
    rows = concat([np.arange(row * count, row * count + width) for row, width in enumerate(widths.tolist())])
    best = on_device(rows, tree.token.device)
    nodes = [np.full(width, UNREAD) if known is None else known[row, :width] for row, width in enumerate(widths.tolist())]
    # A missing proposal (-1) becomes the last trie node, which is a leaf.
    slots = _add_level(tree, trie, tasks, nodes, selected.nodes.take(best).remainder_(trie.nodes), selected.parent_slots.take(best))
    tree.set_scores(slots, selected.cum_log_probs.take(best), None if selected.scores is None else selected.scores.take(best))
    for task in tasks:
        task.is_read = known is not None
    if known is None:
        proposals.added = [(task.search.sequence, task.frontier) for task in tasks]


def _below(tree: TokenTree, trie: ItemTrie, tasks: Sequence[DraftTask], sampled: bool) -> tuple[Frontier, BatchEligibility | None, int]:
    """The frontiers of all tasks, which of their children may be entered (None: all), and the most children that a prefix may have."""
    frontier = Frontier.of(tree, [task.search.sequence.beam_fields(task.frontier) for task in tasks], sampled)
    eligible = BatchEligibility.of([task.search.eligibility for task in tasks], trie.nodes, frontier.sizes)
    return frontier, eligible, max(trie.max_children[task.round.next_depth - 1] for task in tasks)


def _add_level(
    tree: TokenTree, trie: ItemTrie, tasks: Sequence[DraftTask], known: Sequence[IntArray], nodes: Tensor, parents: Tensor
) -> Tensor:
    """Make the next level the frontier of each task: nodes that are in the tree already are used again, the others added.

    Args:
        known: for each task `[n]` int64, the trie nodes of the level; `UNREAD` where the host does not know them.
        nodes: `[nodes]` int64, the trie nodes of all tasks' levels, on the device.
        parents: `[nodes]` int64, the slots of their parents.

    Returns:
        `[nodes]` int64, the slots of all of them.
    """
    device = parents.device
    new = [task.extend(row) for task, row in zip(tasks, known, strict=True)]
    added = [task.search.sequence.node_fields(task.frontier[fresh]) for task, fresh in zip(tasks, new, strict=True)]
    slots, depths, indices, _ = to_device(added, device)
    if not (fresh := concat(new)).all():
        rows = on_device(np.flatnonzero(fresh), device)
        nodes, parents = nodes.index_select(0, rows), parents.index_select(0, rows)
    tree.add_nodes(slots, parents=parents, tokens=trie.token.index_select(0, nodes), depths=depths, indices=indices)
    tree.trie_node.index_copy_(0, slots, nodes)
    return on_device(concat([task.frontier_slots for task in tasks]), device)
