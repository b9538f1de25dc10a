"""Verification of one level on the device: the target selects, and its selection is looked for among the drafted nodes.

Invariant: the target selects by its own log-probabilities and the request's rule alone, with the `expand_beam` of a plain search; a strict
or Gumbel list therefore equals the one without a draft (paper, section 3.1). Only a relaxed search compares with the draft, as the paper
has it. Where the host waits for reading, the levels below are verified as if this one was accepted, so that it reads once a step; what is
selected below a rejected level is dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from drafting.beam.expand import Frontier, Selection, expand_beam
from drafting.beam.gumbel import Stream
from drafting.beam.ranking import BatchRules, rank
from drafting.beam.rule import Verification
from drafting.beam.topk import NEGATIVE_INFINITY, find_nodes
from drafting.beam.tree import TokenTree
from drafting.device import concat, is_async, on_device, pad_stack
from drafting.plans.drafters import BeamDrafter
from drafting.trie.item_trie import ItemTrie
from verification.search import BeamSearch
from verification.verifiers.continuation_table import ContinuationTable
from verification.verifiers.relaxed import select_relaxed

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class VerifiedLevel:
    """The next level of R searches, on the device.

    Attributes:
        ahead: how many levels above it the host has not read.
        drafted: per search, indices of the level's nodes that the target has computed.
        drafted_nodes: `[2, R, most]` int64, these nodes' slots, and their trie nodes with -2 as padding; None if there are none.
        selection: `[R, k]`, the target's beams.
        hits: `[R, k]` int64, where these stand among the drafted, -1 for a prefix that does not; None if none was drafted.
    """

    searches: Sequence[BeamSearch]
    ahead: int
    drafted: Sequence[IntArray]
    drafted_nodes: Tensor | None
    selection: Selection
    hits: Tensor | None


class LevelVerifier:
    """Verifies a level of all searches at once."""

    def __init__(self, tree: TokenTree, trie: ItemTrie, table: ContinuationTable) -> None:
        self._tree = tree
        self._trie = trie
        self._table = table
        self._device = tree.token.device
        self._looks_ahead = is_async(self._device)

    def verify(self, searches: Sequence[BeamSearch], drafter: BeamDrafter | None) -> list[VerifiedLevel]:
        """The next level of all searches; where reading waits, also the level below of those for which this one was drafted, and so on."""
        rules = BatchRules.of([search.rule for search in searches], self._device)
        frontier = Frontier.of(self._tree, [search.sequence.node_fields(search.beam) for search in searches], sampled=rules is not None)
        compared = None if rules is None else self._send_any(concat([_compared(search, search.beam) for search in searches]))
        levels = [self._verify(searches, 0, frontier, rules, compared, drafter)]
        while self._looks_ahead and (below := self._verify_below(levels[-1], drafter)) is not None:
            levels.append(below)
        return levels

    def _verify_below(self, level: VerifiedLevel, drafter: BeamDrafter | None) -> VerifiedLevel | None:
        """The level below for searches that had this one drafted, as if they accepted it; None if there are none."""
        if level.hits is None or level.drafted_nodes is None:
            return None
        rows = [row for row, indices in enumerate(level.drafted) if len(indices)]
        searches = [level.searches[row] for row in rows]
        sizes = tuple(search.widths[search.depth + level.ahead + 1] for search in searches)
        k = level.hits.shape[1]
        beams = on_device(np.concatenate([np.arange(row * k, row * k + size) for row, size in zip(rows, sizes, strict=True)]), self._device)
        # A prefix that was not drafted is taken for another, wholly: its search does not accept the level, or there is no such prefix.
        hits = level.hits.clamp(min=0)
        slots, trie_nodes = level.drafted_nodes.gather(2, hits.expand(2, -1, -1)).flatten(1).index_select(1, beams).unbind(0)
        rules, compared = BatchRules.of([search.rule for search in searches], self._device), None
        if rules is not None:
            drafted = zip(level.searches, level.drafted, strict=True)
            compared = self._send_any(pad_stack([_compared(search, indices) for search, indices in drafted], False))
            compared = None if compared is None else compared.gather(1, hits).take(beams)
        scores = None if rules is None else level.selection.ranking.take(beams)
        frontier = Frontier(slots, trie_nodes, sizes, level.selection.cum_log_probs.take(beams), scores)
        return self._verify(searches, level.ahead + 1, frontier, rules, compared, drafter)

    def _verify(
        self,
        searches: Sequence[BeamSearch],
        ahead: int,
        frontier: Frontier,
        rules: BatchRules | None,
        compared: Tensor | None,
        drafter: BeamDrafter | None,
    ) -> VerifiedLevel:
        """Selects as many prefixes as the widest search keeps.

        Args:
            compared: `[P]` bool, prefixes of relaxed searches whose continuations the draft has scored; None if there are none.
        """
        depths = [search.depth + ahead for search in searches]
        drafted = [search.computed_at(depth + 1) for search, depth in zip(searches, depths, strict=True)]
        drafted_nodes = self._send_nodes(searches, drafted) if any(map(len, drafted)) else None
        trie_nodes = None if drafted_nodes is None else drafted_nodes[1]
        log_probs = self._table.read(frontier.slots, max(self._trie.max_children[depth] for depth in depths))
        first_child = self._trie.first_child.index_select(0, frontier.trie_nodes)
        candidates = rank(frontier, first_child, log_probs, rules, Stream.RESIDUAL)
        widths = [search.widths[depth + 1] for search, depth in zip(searches, depths, strict=True)]
        selection = expand_beam(candidates, max(widths))
        if rules is not None and any(map(_is_relaxed, searches)):
            draft = None
            if drafter is not None and compared is not None:
                draft = drafter.cum_log_probs(frontier.slots, log_probs.shape[1]).masked_fill(~compared[:, None], NEGATIVE_INFINITY)
            selection = select_relaxed(candidates, selection, rules, trie_nodes, draft, on_device(np.array(widths), self._device))
        hits = None if trie_nodes is None else find_nodes(selection.nodes, trie_nodes)
        return VerifiedLevel(searches, ahead, drafted, drafted_nodes, selection, hits)

    def _send_nodes(self, searches: Sequence[BeamSearch], indices: Sequence[IntArray]) -> Tensor:
        slots = [search.sequence.slots[row] for search, row in zip(searches, indices, strict=True)]
        trie_nodes = [search.sequence.trie_nodes[row] for search, row in zip(searches, indices, strict=True)]
        return on_device(np.stack([pad_stack(slots, 0), pad_stack(trie_nodes, -2)]), self._device)

    def _send_any(self, mask: BoolArray) -> Tensor | None:
        return on_device(mask, self._device) if mask.any() else None


def _is_relaxed(search: BeamSearch) -> bool:
    return search.rule.verification is Verification.RELAXED


def _compared(search: BeamSearch, indices: IntArray) -> BoolArray:
    """Whether the target's continuations of some nodes are compared with the draft's."""
    return search.sequence.drafted[indices] & _is_relaxed(search)
