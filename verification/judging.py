"""Judging: moves beams down as many levels as the target's log-probabilities are at hand for.

Invariant: what the target selects depends on its own log-probabilities and the request's rule alone. All requests of a step are judged
together, level by level; a request whose new beam was drafted goes on to its next level, the others wait for the next forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.columns import to_device
from drafting.drafters import BeamDrafter
from drafting.expand import NEGATIVE_INFINITY, Candidates, Frontier, Selection, find_nodes, flatten_requests, neighbours, select
from drafting.gumbel import Stream
from drafting.ranking import BatchRules, rank
from drafting.rule import Verification
from drafting.transfer import on_device
from drafting.tree import TokenTree
from drafting.trie import ItemTrie
from verification.kv_slots import SlotPool
from verification.log_probs import ContinuationTable
from verification.relaxed import LevelNoise, verify_relaxed
from verification.search import BeamSearch
from verification.strict import Verdict, verify_strictly

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


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
        """The new beam, `[4, width]`: each prefix's place in the flattened selection of `k` a search, its slot, column and depth."""
        beam = self.search.beam
        rows = np.empty((4, len(beam)), np.int64)
        rows[0] = np.arange(self.row * k, self.row * k + len(beam))
        rows[1] = self.search.columns.slots[beam]
        rows[2] = beam
        rows[3] = self.search.depth
        return rows


class Judge:
    """Decides levels for all running requests at once."""

    def __init__(self, tree: TokenTree, trie: ItemTrie, table: ContinuationTable, nodes: SlotPool) -> None:
        self._tree = tree
        self._trie = trie
        self._table = table
        self._nodes = nodes

    def judge(self, searches: Sequence[BeamSearch], drafter: BeamDrafter | None) -> tuple[list[FinishedSearch], list[LevelDecision]]:
        """Takes every search as far down as it can go; the beams of the unfinished ones are in the tree for the next forward.

        Args:
            drafter: knows what the draft thought, which relaxed searches compare with.
        """
        finished: list[FinishedSearch] = []
        decisions: list[LevelDecision] = []
        deciding = list(searches)
        while deciding:
            decided = self._judge_level(deciding, drafter, finished)
            decisions += decided
            deciding = [decision.search for decision in decided if decision.accepted]
        return finished, decisions

    def _judge_level(
        self, searches: Sequence[BeamSearch], drafter: BeamDrafter | None, finished: list[FinishedSearch]
    ) -> list[LevelDecision]:
        drafted = [search.drafted_at(search.depth + 1) for search in searches]
        verdict = self._verdict(searches, drafted, drafter)
        nodes, places = _on_host(verdict)
        decisions, moved, ended = [], [], []
        for row, search in enumerate(searches):
            width = _chosen(nodes[row], search.widths[search.depth + 1])
            if search.depth == search.last_depth or not width:
                ended.append((row, search, width))
                continue
            move = self._descend(row, search, width, drafted[row], None if places is None else places[row, :width])
            moved.append(move)
            decisions.append(LevelDecision(search, search.depth, nodes[row, :width], accepted=not move.added))
        if moved:
            self._write_beams(verdict.selection, moved)
        if ended:
            log_probs = verdict.selection.log_probs.cpu().numpy()
            finished += [FinishedSearch(search, nodes[row, :width], log_probs[row, :width]) for row, search, width in ended]
        return decisions

    def _descend(self, row: int, search: BeamSearch, width: int, drafted: IntArray, places: IntArray | None) -> _Move:
        """Makes the prefixes that the target has chosen the beam; those that nobody has drafted become new columns.

        Args:
            places: `[width]`, where they stand among the drafted ones, -1 for one that does not; None if none does.
        """
        if places is None:
            search.descend(search.columns.append(self._nodes.allocate(width), search.depth + 1), hits=0)
            return _Move(row, search, None, width)
        missing = places < 0
        added = int(np.count_nonzero(missing))
        beam = np.empty(width, np.int64)
        beam[missing] = search.columns.append(self._nodes.allocate(added), search.depth + 1)
        hit = ~missing
        beam[hit] = drafted[places[hit]]
        search.descend(beam, hits=width - added)
        return _Move(row, search, missing, added)

    def _verdict(self, searches: Sequence[BeamSearch], drafted: Sequence[IntArray], drafter: BeamDrafter | None) -> Verdict:
        """The target's choice for each search's next level, as many prefixes as the widest keeps."""
        device = self._tree.token.device
        frontier = Frontier.of([search.columns.slots[search.beam] for search in searches], device)
        width = max(self._trie.max_children[search.depth] for search in searches)
        found = self._table.read(frontier, self._tree.trie_node.index_select(0, frontier.slots), width)
        rules = BatchRules.of([search.request.rule for search in searches], device)
        candidates = rank(found, self._tree, frontier, rules, Stream.RESIDUAL)
        kept = max(search.widths[search.depth + 1] for search in searches)
        there = self._trie_nodes(searches, drafted) if any(map(len, drafted)) else None
        verdict = verify_strictly(candidates, frontier, there, kept)
        if rules is None or not any(map(_is_relaxed, searches)):
            return verdict
        relaxed = self._relaxed(searches, frontier, candidates, there, drafter, rules, kept)
        choice = rules.relaxed[:, None]
        strict = verdict.selection
        selection = Selection(
            parents=torch.where(choice, relaxed.parents, strict.parents),
            nodes=torch.where(choice, relaxed.nodes, strict.nodes),
            scores=torch.where(choice, relaxed.scores, strict.scores),
            log_probs=torch.where(choice, relaxed.log_probs, strict.log_probs),
        )
        return Verdict(selection, None if there is None else find_nodes(selection.nodes, there))

    def _relaxed(
        self,
        searches: Sequence[BeamSearch],
        frontier: Frontier,
        candidates: Candidates,
        there: Tensor | None,
        drafter: BeamDrafter | None,
        rules: BatchRules,
        kept: int,
    ) -> Selection:
        """The choice by relaxed verification, for every search as if it had asked for it."""
        width = candidates.scores.shape[1]
        draft = torch.full_like(candidates.log_probs, NEGATIVE_INFINITY)
        known = np.flatnonzero(np.concatenate([search.columns.drafted[search.beam] & _is_relaxed(search) for search in searches]))
        if drafter is not None and len(known):
            rows = self._to_device(known)
            draft.index_copy_(0, rows, drafter.totals(frontier.slots.index_select(0, rows), width))
        target = flatten_requests(candidates.log_probs, frontier, kept)
        below = neighbours(candidates.first, width)
        nodes = torch.nn.functional.pad(below[frontier.rows].flatten(1), (0, target.shape[1] - frontier.rows.shape[1] * width))
        places = verify_relaxed(
            target,
            flatten_requests(draft, frontier, kept),
            torch.zeros_like(nodes, dtype=torch.bool) if there is None else find_nodes(nodes, there) >= 0,
            LevelNoise.of(rules.seeds, nodes),
            self._to_device(np.array([search.widths[search.depth + 1] for search in searches])),
            kept,
        )
        return select(candidates, frontier, flatten_requests(candidates.scores, frontier, kept), places)

    def _trie_nodes(self, searches: Sequence[BeamSearch], columns: Sequence[IntArray]) -> Tensor:
        """Where some nodes of each search stand in the trie, `[searches, most]`; -2 pads."""
        counts = np.array([len(row) for row in columns])
        padded = torch.full((len(searches), int(counts.max())), -2, device=self._tree.token.device)
        slots = np.concatenate([search.columns.slots[row] for search, row in zip(searches, columns, strict=True)])
        places = self._to_device(np.flatnonzero(np.arange(counts.max()) < counts[:, None]))
        padded.view(-1).index_copy_(0, places, self._tree.trie_node.index_select(0, self._to_device(slots)))
        return padded

    def _write_beams(self, selection: Selection, moved: Sequence[_Move]) -> None:
        """Writes what the target thinks of the new beams, and the nodes in them that no draft had added, into the tree."""
        k = selection.nodes.shape[1]
        places, slots, columns, depths = to_device([move.rows(k) for move in moved], self._tree.token.device)
        parents, nodes, log_probs = selection.parents.flatten(), selection.nodes.flatten(), selection.log_probs.flatten()
        scores = selection.scores.flatten() if selection.samples else None
        # Places ascend, so as many of them as there are selected prefixes are all of these in order.
        if len(places) < len(nodes):
            parents, nodes, log_probs = (part.index_select(0, places) for part in (parents, nodes, log_probs))
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
        self._tree.add_nodes(slots, parents=parents, tokens=tokens, trie_nodes=nodes, depths=depths, columns=columns)

    def _to_device(self, array: npt.NDArray[Any]) -> Tensor:
        return on_device(array, self._tree.token.device)


def _is_relaxed(search: BeamSearch) -> bool:
    return search.request.rule.verification is Verification.RELAXED


def _chosen(nodes: IntArray, width: int) -> int:
    """How many prefixes a row of a verdict holds for a search that keeps `width`; padding is -1, and stands behind them."""
    return width if nodes[width - 1] >= 0 else int(np.count_nonzero(nodes[:width] >= 0))


def _on_host(verdict: Verdict) -> tuple[IntArray, IntArray | None]:
    """Nodes and places of a verdict, `[requests, k]` each, in one transfer."""
    if verdict.places is None:
        return verdict.selection.nodes.cpu().numpy(), None
    nodes, places = torch.stack([verdict.selection.nodes, verdict.places]).cpu().numpy()
    return nodes, places
