"""Verification of one level on the device: the target selects, and its selection is looked for among the drafted nodes.

Invariant: the target selects by its own log-probabilities and the request's rule alone, with the `expand_beam` of a plain search; a strict
or Gumbel list therefore equals the one without a draft (paper, section 3.1). Only a relaxed search compares with the draft, as the paper
has it. Where reading waits for the device, the levels below are verified as if this one was accepted, so that the host reads once a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drafting.array_types import IntArray
from drafting.beam.continuations import RowKinds, continuations
from drafting.beam.expand import Frontier, Selection, expand_beams
from drafting.beam.gumbel import Stream
from drafting.beam.ranking import BatchRules, rank
from drafting.beam.rows import Rows
from drafting.beam.rule import Verification
from drafting.beam.tree import TokenTree
from drafting.device import NEGATIVE_INFINITY, arange, find_nodes, grown, is_async, on_device, pad_stack
from drafting.plans.drafters import BeamDrafter
from drafting.trie.eligibility import BatchEligibility
from drafting.trie.item_trie import ItemTrie
from verification.search import BeamSearch
from verification.slots.pool import SlotPool
from verification.verifiers.relaxed import select_relaxed

# Rows that a table begins with.
FEWEST_ROWS = 1024


@dataclass(frozen=True)
class VerifiedLevel:
    """The next level of R searches, on the device.

    Attributes:
        levels_above: number of levels between the beams that the host knows and this level: 0 where it is the next one.
        sizes: for each search, the number of prefixes above the level.
        first_log_probs: `[prefixes]` float32, of the first child of each of these: NaN where the target's logits are not finite.
        drafted: for each search, the indices in its sequence of the nodes at this level that the target has computed.
        drafted_fields: `[R, 3, most]` int64, `BeamSearch.node_fields` of these nodes; -2 pads. None if there are no such nodes.
        selection: `[R, k]`, the target's beams; behind a beam the next best prefixes, as many as its search asks for or more.
        hits: `[R, k]` int64, where each selected prefix stands among the drafted nodes; -1 if it does not. None if there are no such nodes.
    """

    searches: Sequence[BeamSearch]
    levels_above: int
    sizes: Sequence[int]
    first_log_probs: Tensor
    drafted: Sequence[IntArray]
    drafted_fields: Tensor | None
    selection: Selection
    hits: Tensor | None


class ContinuationTable:
    """A row per node slot: `[nodes, most children]` float32, of each child given the node; as many rows as slots were ever taken.

    A row is written as far as nodes of its depth have children at most; what an earlier node has left stands behind.
    """

    def __init__(self, trie: ItemTrie, slots: SlotPool, device: torch.device) -> None:
        """`slots` is the pool from which nodes take their slots."""
        self._trie = trie
        self._slots = slots
        self._log_probs = torch.zeros(min(FEWEST_ROWS, slots.total), max(trie.max_children), device=device)

    def write(self, slots: Tensor, trie_nodes: Tensor, rows: Rows, kinds: RowKinds, eligible: BatchEligibility | None) -> None:
        """Keep the log-probabilities after nodes in `slots`; for the other arguments see `continuation_log_probs`."""
        if self._slots.most_used > len(self._log_probs):
            self._log_probs = grown(self._log_probs, self._slots.most_used, self._slots.total)
        for part in continuations(self._trie, trie_nodes, rows, kinds, eligible):
            of_kind = slots if part.rows is None else slots.index_select(0, part.rows)
            self._log_probs[:, : part.log_probs.shape[1]].index_copy_(0, of_kind, part.log_probs)

    def read(self, slots: Tensor, width: int) -> Tensor:
        """`[slots, width]`, the rows of nodes that were written before; columns that no node of their depth has may hold anything."""
        return self._log_probs[:, :width].index_select(0, slots)

    def at(self, slots: Tensor, columns: Tensor) -> Tensor:
        """`[n]`, the log-probability of one child of each node: the one in column `columns` of the row."""
        return self._log_probs[slots, columns]


class LevelVerifier:
    """Verifies a level of all searches at once."""

    def __init__(self, tree: TokenTree, trie: ItemTrie, table: ContinuationTable) -> None:
        self._tree = tree
        self._trie = trie
        self._table = table
        self._device = tree.token.device
        self._reading_waits = is_async(self._device)

    def verify(self, searches: Sequence[BeamSearch], drafter: BeamDrafter | None) -> list[VerifiedLevel]:
        """Verify the next level of all searches; where reading waits, also the level below for searches of which this one was drafted, and
        so on. Searches with a tolerance are always looked at further below, because they may end without all of their beams."""
        rules = self._rules(searches)
        beams = [search.beam_fields(search.beam, search.depth) for search in searches]
        frontier = Frontier.of(self._tree, beams, sampled=rules is not None)
        levels = [self._verify(searches, 0, frontier, rules, drafter)]
        while (below := self._verify_below(levels[-1], drafter)) is not None:
            levels.append(below)
        return levels

    def _verify_below(self, level: VerifiedLevel, drafter: BeamDrafter | None) -> VerifiedLevel | None:
        """Verify the level below for searches of which this one was drafted, as if it was accepted; None if there are none."""
        if level.hits is None or level.drafted_fields is None:
            return None
        goes_on = [self._reading_waits or search.tolerance is not None for search in level.searches]
        rows = [row for row, indices in enumerate(level.drafted) if len(indices) and goes_on[row]]
        if not rows:
            return None
        searches = [level.searches[row] for row in rows]
        sizes = tuple(search.continued(search.depth + level.levels_above + 1) for search in searches)
        k = level.hits.shape[1]
        beams = on_device(np.concatenate([np.arange(row * k, row * k + size) for row, size in zip(rows, sizes, strict=True)]), self._device)
        hidden = level.hits < 0
        if any(search.tolerance is not None for search in searches):
            hidden |= self._needless_stand_ins(level, hidden)
        # A prefix that was not drafted has no slot, so it gets that of the best one; it is hidden, and nothing follows from it.
        hits = torch.where(level.hits < 0, level.hits[:, :1], level.hits).clamp_(min=0)[:, None].expand(-1, 2, -1)
        slots, asked = level.drafted_fields[:, :2].gather(2, hits).transpose(0, 1).flatten(1).index_select(1, beams).unbind(0)
        rules = self._rules(searches)
        scores = None if rules is None else level.selection.ranking.take(beams)
        trie_nodes = self._tree.trie_node.index_select(0, slots)
        cum_log_probs = level.selection.cum_log_probs.masked_fill(hidden, NEGATIVE_INFINITY).take(beams)
        frontier = Frontier(slots, trie_nodes, sizes, cum_log_probs, scores, asked)
        return self._verify(searches, level.levels_above + 1, frontier, rules, drafter)

    def _needless_stand_ins(self, level: VerifiedLevel, missing: Tensor) -> Tensor:
        """`[R, k]` bool, prefixes behind a beam that has none missing, for which they would stand in; `missing` is `[R, k]` bool."""
        widths = [search.widths[search.depth + level.levels_above + 1] for search in level.searches]
        is_beside = arange(missing.shape[1], self._device) >= on_device(np.array(widths), self._device)[:, None]
        return is_beside & ~(missing & ~is_beside).any(1, keepdim=True)

    def _verify(
        self, searches: Sequence[BeamSearch], levels_above: int, frontier: Frontier, rules: BatchRules | None, drafter: BeamDrafter | None
    ) -> VerifiedLevel:
        """Select from the continuations of `frontier`, and look for what is selected among the drafted nodes."""
        depths = [search.depth + levels_above for search in searches]
        drafted = [search.computed_at(depth + 1) for search, depth in zip(searches, depths, strict=True)]
        fields = None
        if any(map(len, drafted)):
            levels = zip(searches, drafted, depths, strict=True)
            rows = [search.node_fields(indices, depth + 1) for search, indices, depth in levels]
            fields = on_device(pad_stack(rows, -2), self._device)
        nodes = None if fields is None else self._tree.trie_node[fields[:, 0]].masked_fill_(fields[:, 0] < 0, -2)
        first_child = self._trie.child_offsets.index_select(0, frontier.trie_nodes)
        log_probs = self._child_log_probs(frontier, depths)
        scored = rank(frontier, first_child, log_probs, rules, Stream.RESIDUAL)
        selection = expand_beams(scored, [search.selected(depth + 1) for search, depth in zip(searches, depths, strict=True)])
        relaxed = [row for row, search in enumerate(searches) if search.rule.verification is Verification.RELAXED]
        if rules is not None and relaxed:
            draft = None if drafter is None else drafter.cum_log_probs(frontier.slots, log_probs.shape[1])
            proposed = None if nodes is None or fields is None else nodes.masked_fill(fields[:, 2] != 1, -2)
            select_relaxed(scored, selection, rules, proposed, draft, {row: searches[row].widths[depths[row] + 1] for row in relaxed})
        hits = None if nodes is None else find_nodes(selection.nodes, nodes)
        return VerifiedLevel(searches, levels_above, frontier.sizes, log_probs[:, 0], drafted, fields, selection, hits)

    def _child_log_probs(self, frontier: Frontier, depths: Sequence[int]) -> Tensor:
        """`[P, width]` float32, of each child given its prefix; -inf in columns that no prefix of its length has."""
        widths = [self._trie.max_children[depth] for depth in depths]
        log_probs = self._table.read(frontier.slots, max(widths))
        if min(widths) < max(widths):
            # They may hold what an earlier node of the slot has left.
            ends = on_device(np.repeat(widths, frontier.sizes), self._device)
            log_probs.masked_fill_(arange(max(widths), self._device) >= ends[:, None], NEGATIVE_INFINITY)
        return log_probs

    def _rules(self, searches: Sequence[BeamSearch]) -> BatchRules | None:
        return BatchRules.of([search.rule for search in searches], self._device)
