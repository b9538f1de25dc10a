"""Judging: moves beams down as many levels as the target's log-probabilities are at hand for.

Invariant: all requests of a step are judged together, level by level; a request whose new beam was drafted goes on to its next level, the
others wait for the next forward. What was judged below a level that is not accepted leaves no trace.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from drafting.beam.expand import Selection
from drafting.beam.sequence import to_device
from drafting.beam.tree import TokenTree
from drafting.device import on_device
from drafting.plans.drafters import BeamDrafter
from drafting.trie.item_trie import ItemTrie
from verification.search import BeamSearch
from verification.slots.pool import SlotPool
from verification.verifiers.continuation_table import ContinuationTable
from verification.verifiers.level import Chosen, LevelVerifier, VerifiedLevel, read_levels

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

NOTHING_RATED = np.empty(0, np.float32)


@dataclass(frozen=True)
class LevelDecision:
    """What one search's target chose at one level.

    Attributes:
        depth: of the level.
        nodes: `[chosen]` int64 trie nodes, best first, on the host.
        accepted: whether all of them were drafted, so that the next level can be judged without a forward.
    """

    search: BeamSearch
    depth: int
    nodes: IntArray
    accepted: bool


@dataclass(frozen=True)
class FinishedSearch:
    """The leaves that a search has come to, `[leaves]` each, on the host."""

    search: BeamSearch
    leaves: IntArray
    log_probs: FloatArray


@dataclass(frozen=True)
class _Move:
    """One search that goes down a level.

    Attributes:
        row: its row in the verdict.
        missing: `[width]` bool, which prefixes of its new beam nobody has drafted; None if nobody has drafted any.
        added: how many those are.
    """

    row: int
    search: BeamSearch
    missing: npt.NDArray[np.bool_] | None
    added: int

    def rows(self, k: int) -> IntArray:
        """The new beam, `[5, width]`: each prefix's place in the flattened selection of `k` a search, and its `node_rows`."""
        beam = self.search.beam
        places = np.arange(self.row * k, self.row * k + len(beam))
        return np.concatenate([places[None], self.search.columns.node_rows(beam)])


class Verifier:
    """Decides levels for all running requests at once."""

    def __init__(self, tree: TokenTree, trie: ItemTrie, table: ContinuationTable, nodes: SlotPool) -> None:
        self._tree = tree
        self._trie = trie
        self._nodes = nodes
        self._levels = LevelVerifier(tree, trie, table)

    def verify(self, searches: Sequence[BeamSearch], drafter: BeamDrafter | None) -> tuple[list[FinishedSearch], list[LevelDecision]]:
        """Takes every search as far down as it can go; the beams of the unfinished ones are in the tree for the next forward.

        Args:
            drafter: knows what the draft thought, which relaxed searches compare with.
        """
        finished: list[FinishedSearch] = []
        decisions: list[LevelDecision] = []
        deciding = list(searches)
        while deciding:
            levels = self._levels.verify(deciding, drafter)
            for level, chosen in zip(levels, read_levels(levels), strict=True):
                decided = self._take_down(level, chosen, deciding, finished, last=level is levels[-1])
                decisions += decided
                deciding = [decision.search for decision in decided if decision.accepted]
                if not deciding:
                    break
        return finished, decisions

    def _take_down(
        self, level: VerifiedLevel, chosen: Chosen, deciding: Sequence[BeamSearch], finished: list[FinishedSearch], last: bool
    ) -> list[LevelDecision]:
        """Moves those searches of the level down that are still `deciding`; the others were judged for nothing.

        Args:
            last: whether the levels below have not been judged yet.
        """
        still = {id(search) for search in deciding}
        decisions, moved = [], []
        for row, search in enumerate(level.searches):
            if id(search) not in still:
                continue
            width = _chosen(chosen.nodes[row], search.widths[search.depth + 1])
            nodes = chosen.nodes[row, :width]
            if search.depth == search.last_depth or not width:
                finished.append(FinishedSearch(search, nodes, NOTHING_RATED if chosen.log_probs is None else chosen.log_probs[row, :width]))
                continue
            places = None if chosen.places is None else chosen.places[row, :width]
            move = self._descend(row, search, nodes, level.drafted[row], places)
            # What is known of a beam whose next level has been judged is not asked for again.
            if last or move.added:
                moved.append(move)
            decisions.append(LevelDecision(search, search.depth, nodes, accepted=not move.added))
        if moved:
            self._write_beams(level.verdict.selection, moved)
        return decisions

    def _descend(self, row: int, search: BeamSearch, nodes: IntArray, drafted: IntArray, places: IntArray | None) -> _Move:
        """Makes the prefixes that the target has chosen the beam; those that nobody has drafted become new columns.

        Args:
            nodes: `[width]`, where they stand in the trie.
            drafted: the columns of the drafted ones.
            places: `[width]`, where they stand among these, -1 for one that does not; None if none does.
        """
        width = len(nodes)
        if places is None:
            search.descend(search.columns.append(self._nodes.allocate(width), search.depth + 1, nodes), hits=0)
            return _Move(row, search, None, width)
        missing = places < 0
        added = int(np.count_nonzero(missing))
        beam = np.empty(width, np.int64)
        beam[missing] = search.columns.append(self._nodes.allocate(added), search.depth + 1, nodes[missing])
        hit = ~missing
        beam[hit] = drafted[places[hit]]
        search.descend(beam, hits=width - added)
        return _Move(row, search, missing, added)

    def _write_beams(self, selection: Selection, moved: Sequence[_Move]) -> None:
        """Writes what the target thinks of the new beams, and the nodes in them that no draft had added, into the tree."""
        k = selection.nodes.shape[1]
        places, slots, nodes, depths, columns = to_device([move.rows(k) for move in moved], self._tree.token.device)
        parents, log_probs = selection.parents.flatten(), selection.log_probs.flatten()
        scores = selection.scores.flatten() if selection.samples else None
        # Places ascend, so as many of them as there are selected prefixes are all of these in order.
        if len(places) < len(parents):
            parents, log_probs = parents.index_select(0, places), log_probs.index_select(0, places)
            scores = None if scores is None else scores.index_select(0, places)
        self._tree.rate(slots, log_probs, scores)
        added = sum(move.added for move in moved)
        if not added:
            return
        if added < len(slots):
            new = np.concatenate([np.ones(move.added, bool) if move.missing is None else move.missing for move in moved])
            rows = self._to_device(np.flatnonzero(new))
            parents, nodes, slots, columns, depths = (part.index_select(0, rows) for part in (parents, nodes, slots, columns, depths))
        tokens = self._trie.token.index_select(0, nodes)
        self._tree.add_nodes(slots, parents=parents, tokens=tokens, depths=depths, columns=columns)

    def _to_device(self, array: npt.NDArray[Any]) -> Tensor:
        return on_device(array, self._tree.token.device)


def _chosen(nodes: IntArray, width: int) -> int:
    """How many prefixes a row of a verdict holds for a search that keeps `width`; padding is -1, and stands behind them."""
    return width if nodes[width - 1] >= 0 else int(np.count_nonzero(nodes[:width] >= 0))
