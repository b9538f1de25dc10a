"""Explanations of the requests that ask for them: beams as the verifier selected them, and what was beside them.

They are made when searches end. Until then the table has the log-probabilities of all continuations of all nodes in the tree, so nothing
but the beams has to be written down on the way.

Invariant: a search is only looked at, never changed, and a search that is not to be explained is not even looked at. A level shows the
whole beam, all candidates of a blend, and as many others as the request asks for, each with its parent; so an explanation is bounded by its
request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch

from drafting.array_types import FloatArray, IntArray
from drafting.beam.ranking import renormalised
from drafting.beam.rule import Verification
from drafting.device import NEGATIVE_INFINITY, on_device, on_host, stable_topk
from drafting.trie.arrays import find_in_array
from drafting.trie.item_trie import ROOT, ItemTrie
from verification.explanation import ExplainedLevel, Explanation
from verification.search import NOTHING, BeamSearch
from verification.verifiers.level import ContinuationTable
from verification.verifiers.verifier import VerifyResult


@dataclass(frozen=True)
class _Beam:
    """The beam of a level, as in `VerifyResult`, and the forward that verified it."""

    forward: int
    accepted: bool
    finished: bool
    nodes: IntArray
    cum_log_probs: FloatArray
    hits: IntArray


@dataclass(frozen=True)
class _Told:
    """The prefixes of a level that an explanation shows.

    Attributes:
        nodes: `[n]` int64 trie nodes, the beam's first.
        cum_log_probs: `[n]` float32.
        indices: `[n]` int64, where the prefixes stand in the sequence; -1 for one that does not.
        beam: number of prefixes in the beam.
    """

    nodes: IntArray
    cum_log_probs: FloatArray
    indices: IntArray
    beam: int

    def in_tree(self) -> "_Told":
        """Without the prefixes that are not in the sequence, whose continuations nobody knows."""
        there = self.indices >= 0
        return _Told(self.nodes[there], self.cum_log_probs[there], self.indices[there], self.beam)


class ExplainStep:
    """Watches the searches that are to be explained; a search that ends takes what was written of it along."""

    def __init__(self, trie: ItemTrie, table: ContinuationTable, device: torch.device) -> None:
        self._trie = trie
        self._table = table
        self._device = device
        self._beams: WeakKeyDictionary[BeamSearch, list[_Beam]] = WeakKeyDictionary()

    def begin(self, search: BeamSearch) -> None:
        """Watch a search that has not begun."""
        self._beams[search] = []

    def observe(self, results: Sequence[VerifyResult]) -> None:
        """Write down what a step has verified."""
        if not self._beams:
            return
        for result in results:
            if (beams := self._beams.get(result.search)) is not None:
                forward = result.search.target_forwards
                beams.append(_Beam(forward, result.accepted, result.finished, result.nodes, result.cum_log_probs, result.hits))

    def explain(self, parts: Sequence[VerifyResult]) -> Explanation | None:
        """The explanation of a request whose searches have all ended, if it asks for one; call it once, before their slots are free."""
        if (others := parts[0].search.request.explain) is None:
            return None
        found = Explanation(tuple(self._levels(part.search, others) for part in parts))
        for part in parts:
            # What may follow is another round.
            del self._beams[part.search]
        return found

    def _levels(self, search: BeamSearch, others: int) -> tuple[ExplainedLevel, ...]:
        above = _Told(np.array([ROOT]), np.zeros(1, np.float32), np.array([search.sequence.root]), 1)
        levels = []
        for depth, beam in enumerate(self._beams[search], start=1):
            level, above = self._level(search, depth, beam, above.in_tree(), others)
            levels.append(level)
        return tuple(levels)

    def _level(self, search: BeamSearch, depth: int, beam: _Beam, above: _Told, others: int) -> tuple[ExplainedLevel, _Told]:
        """Explain one level; return also its prefixes. `above` are the prefixes of the level above it that are in the tree."""
        here = np.flatnonzero(search.sequence.depths == depth)
        candidates, is_leaf = _candidates(search, depth), depth > search.last_depth
        grown = candidates if is_leaf else search.sequence.trie_nodes[here]
        nodes, cum_log_probs, considered = self._beside(search, depth, above, np.unique(grown[grown >= 0]), len(beam.nodes) + others)
        kept = ~np.isin(nodes, beam.nodes) & (cum_log_probs > NEGATIVE_INFINITY)
        nodes, cum_log_probs = nodes[kept], cum_log_probs[kept]
        order = np.lexsort((nodes, -cum_log_probs))
        is_candidate = np.isin(nodes[order], candidates)
        order = order[is_candidate | (np.cumsum(~is_candidate) <= others)]
        told = _Told(
            np.concatenate([beam.nodes, nodes[order]]),
            np.concatenate([beam.cum_log_probs, cum_log_probs[order]]),
            np.concatenate([_beam_indices(search, depth, beam), _indices(search, here, nodes[order])]),
            len(beam.nodes),
        )
        return self._explained(search, depth, beam, above, told, considered, here), told

    def _beside(self, search: BeamSearch, depth: int, above: _Told, grown: IntArray, most: int) -> tuple[IntArray, FloatArray, int]:
        """Continuations of `above` with their cumulative log-probabilities: those that are `grown` in the tree already, and the `most` best
        of the beam; and how many the beam has in all."""
        width, first_child = self._trie.max_children[depth - 1], self._trie.first_child[above.nodes]
        log_probs = self._table.read(on_device(search.sequence.slots[above.indices], self._device), width)
        if search.rule.verification is not Verification.STRICT:
            log_probs = renormalised(log_probs, log_probs.new_full((len(log_probs),), search.rule.temperature))
        continued = on_device(above.cum_log_probs, self._device)[:, None] + log_probs
        rows = find_in_array(self._trie.parents(grown, depth), above.nodes)
        grown, rows = grown[rows >= 0], rows[rows >= 0]
        places = on_device(rows * width + grown - first_child[rows], self._device)
        of_beam = continued[: above.beam].reshape(1, -1)
        best, indices = stable_topk(of_beam, min(most, of_beam.shape[1]))
        found = on_host([continued.take(places), indices, best, (of_beam > NEGATIVE_INFINITY).sum()])
        row, column = np.divmod(found[1][0], width)
        nodes, first = np.unique(np.concatenate([grown, first_child[row] + column]), return_index=True)
        return nodes, np.concatenate([found[0], found[2][0]])[first], int(found[3])

    def _explained(
        self, search: BeamSearch, depth: int, beam: _Beam, above: _Told, told: _Told, considered: int, here: IntArray
    ) -> ExplainedLevel:
        first_draft = search.sequence.root + 1 + search.request.blended_nodes
        is_added = np.pad(beam.hits < 0, (0, len(told.nodes) - told.beam))
        is_drafted = (told.indices >= first_draft) & ~is_added
        drafts = search.sequence.trie_nodes[here[here >= first_draft]]
        of_beam = np.isin(self._trie.parents(told.nodes, depth), above.nodes[: above.beam])
        return ExplainedLevel(
            forward=beam.forward,
            accepted=beam.accepted,
            considered=considered,
            drafted=len(drafts) - (0 if beam.finished else int(np.count_nonzero(is_added))),
            used=int(np.count_nonzero(is_drafted[: told.beam])),
            beam=told.beam,
            truncated=bool(np.count_nonzero(of_beam) < considered or not np.isin(drafts[drafts >= 0], told.nodes).all()),
            items=tuple(self._trie.items[self._trie.item_ranges(told.nodes)[0]].tolist()),
            log_probs=tuple(told.cum_log_probs.tolist()),
            is_drafted=tuple(is_drafted.tolist()),
            is_candidate=tuple(np.isin(told.nodes, _candidates(search, depth)).tolist()),
        )


def _candidates(search: BeamSearch, depth: int) -> IntArray:
    """Trie nodes at `depth` that lead to candidates of a blend."""
    blend = search.request.blend
    return NOTHING if blend is None else blend.paths[:, depth - 1]


def _beam_indices(search: BeamSearch, depth: int, beam: _Beam) -> IntArray:
    """`[beam]`, where a level's beam stands in the sequence; -1 at the last level, whose prefixes do not."""
    if beam.finished:
        return np.full(len(beam.nodes), -1)
    descended = np.concatenate([search.ancestors, search.beam])
    indices: IntArray = descended[search.sequence.depths[descended] == depth]
    return indices


def _indices(search: BeamSearch, here: IntArray, nodes: IntArray) -> IntArray:
    """`[nodes]`, where trie nodes stand in the sequence, -1 for those that do not; `here` are the indices of all nodes of their depth."""
    found = find_in_array(nodes, search.sequence.trie_nodes[here])
    there = found >= 0
    found[there] = here[found[there]]
    return found
