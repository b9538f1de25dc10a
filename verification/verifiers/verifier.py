"""Verification, the second half of speculative decoding: moves beams down as many levels as the target has log-probabilities for.

Invariant: all searches of a step are verified together, level by level; one whose new beam was drafted goes on to its next level, the
others wait for the next forward. What was verified below a rejected level leaves no trace, unless a look-ahead proves its list to be close
enough: it was verified as if that level was accepted.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np

from drafting.array_types import FloatArray, IntArray
from drafting.beam.expand import Selection
from drafting.beam.tree import TokenTree
from drafting.device import concat, on_device, on_host
from drafting.plans.drafters import BeamDrafter, Proposals
from drafting.trie.item_trie import ItemTrie
from verification.search import BeamSearch
from verification.slots.engine_slots import EngineSlots
from verification.verifiers.bounded import LookAhead
from verification.verifiers.level import ContinuationTable, LevelVerifier, VerifiedLevel


class Selected(NamedTuple):
    """Prefixes of one level that the target has selected or nearly selected; attributes as of `VerifyResult`."""

    nodes: IntArray
    cum_log_probs: FloatArray
    hits: IntArray


@dataclass(frozen=True)
class VerifyResult:
    """The target's selection for one search at one level, on the host.

    Attributes:
        row: the row of the search in the `VerifiedLevel`.
        depth: the depth of the level.
        nodes: `[n]` int64, the trie nodes of the selected prefixes, best first.
        cum_log_probs: `[n]` float32.
        drafted: `[d]` int64, the indices in the search's sequence of the nodes at this level that the target has computed.
        hits: `[n]` int64, where each selected prefix stands in `drafted`; -1 for one that was not drafted.
        beside: the next best prefixes, as many as the search asks for; see `BeamSearch.selected`.
        finite: False if the target's logits after the prefixes above are not finite: then the search ends, and nothing else here counts.
        finished: True if the search ends with this level.
        accepted: True if all selected prefixes were drafted, so that the next level can be verified without a forward.
    """

    search: BeamSearch
    row: int
    depth: int
    nodes: IntArray
    cum_log_probs: FloatArray
    drafted: IntArray
    hits: IntArray
    beside: Selected
    finite: bool
    finished: bool
    accepted: bool

    @property
    def look_ahead_prefixes(self) -> Selected:
        """The prefixes by which a look-ahead goes on: the beam, and if some of it was not drafted also the prefixes beside it."""
        beam, beside = Selected(self.nodes, self.cum_log_probs, self.hits), self.beside
        if (self.hits >= 0).all():
            return beam
        log_probs = np.concatenate([beam.cum_log_probs, beside.cum_log_probs])
        return Selected(self.kept, log_probs, np.concatenate([beam.hits, beside.hits]))

    @property
    def used(self) -> IntArray:
        """Indices in the sequence of those of `look_ahead_prefixes` that were drafted."""
        hits = self.look_ahead_prefixes.hits
        return self.drafted[hits[hits >= 0]]

    @property
    def kept(self) -> IntArray:
        """`[n + m]` int64, the trie nodes of the beam and of what is beside it, for drafts of the user's next search."""
        return np.concatenate([self.nodes, self.beside.nodes])


class Verifier:
    """Verifies levels for all running searches at once.

    Attributes:
        levels: how many levels, one after the other, the last call of `verify` has verified.
    """

    def __init__(self, tree: TokenTree, trie: ItemTrie, table: ContinuationTable, slots: EngineSlots) -> None:
        self._tree = tree
        self._trie = trie
        self._slots = slots
        self._level_verifier = LevelVerifier(tree, trie, table)
        self.levels = 0

    def verify(self, searches: Sequence[BeamSearch], drafter: BeamDrafter | None, unread: Sequence[Proposals] = ()) -> list[VerifyResult]:
        """Take every search as far down as it can go. Relaxed ones compare with `drafter`; proposals in `unread` are read on the way."""
        results: list[VerifyResult] = []
        self.levels = 0
        while searches:
            levels = self._level_verifier.verify(searches, drafter)
            self.levels += len(levels)
            found_by_level, unread = _read(levels, unread), ()
            results += (ended := self._end_early(found_by_level))
            waiting = set(searches) - {result.search for result in ended}
            for level, found, below in zip(levels, found_by_level, [*levels[1:], None], strict=True):
                decided = [result for result in found if result.search in waiting]
                self._descend(level, decided, verified_below=set() if below is None else set(below.searches))
                results += decided
                waiting -= {result.search for result in decided if not result.accepted}
            searches = [search for search in searches if search in waiting]
        return results

    def _end_early(self, found_by_level: Sequence[Sequence[VerifyResult]]) -> list[VerifyResult]:
        """The results of searches with a tolerance that end early: the levels of plain beam search, and then the list."""
        tolerant: defaultdict[BeamSearch, list[VerifyResult]] = defaultdict(list)
        for result in chain.from_iterable(found_by_level):
            if result.search.tolerance is not None:
                tolerant[result.search].append(result)
        return [result for search, found in tolerant.items() for result in self._end_search_early(search, found)]

    def _end_search_early(self, search: BeamSearch, found: Sequence[VerifyResult]) -> Sequence[VerifyResult]:
        """End a search whose list is proven to be close enough below a rejected level, and return the results that end it, of those `found`
        level by level. Of any other search nothing is changed, and none are returned."""
        accepted = next((number for number, result in enumerate(found) if not result.accepted), len(found))
        below = found[accepted + 1 :]
        if not below or below[-1].depth <= search.last_depth or not all(result.finite for result in found):
            return ()
        if not self._is_within_tolerance(search, found[accepted], below):
            return ()
        search.accepted_depths += range(search.depth + 1, search.last_depth + 1)
        search.count_used(concat([result.used for result in found]))
        if search.keeps_beams:
            # A draft need not be plain beam search's beam, and the list was found below these.
            search.kept += [result.kept for result in below[:-1]]
        return *found[: accepted + 1], below[-1]

    def _is_within_tolerance(self, search: BeamSearch, rejected: VerifyResult, below: Sequence[VerifyResult]) -> bool:
        """True if the list of the last level is proven to be close enough, by what was found of a rejected level and of those below it."""
        assert search.tolerance is not None
        proof = LookAhead(self._trie)
        nodes, log_probs, hits = rejected.look_ahead_prefixes
        proof.reject(nodes, log_probs, hits >= 0, search.widths[rejected.depth])
        for result in below:
            nodes, log_probs, hits = result.look_ahead_prefixes
            drafted = hits >= 0 if result.depth <= search.last_depth else None
            proof.descend(nodes, log_probs, result.depth, search.widths[result.depth], drafted)
        return proof.is_within(search.tolerance, search.widths[-1])

    def _descend(self, level: VerifiedLevel, results: Sequence[VerifyResult], verified_below: set[BeamSearch]) -> None:
        """Make the selected prefixes the beams, and write into the tree those that are read there: not those of `verified_below`, searches
        whose next level has been verified already, if they accepted this one."""
        moved = []
        for result in results:
            if result.finished:
                continue
            result.search.descend(result.nodes, result.drafted, result.hits, self._slots.nodes.allocate)
            if result.search not in verified_below or not result.accepted:
                moved.append(result)
        if moved:
            self._write(level.selection, moved)

    def _write(self, selection: Selection, moved: Sequence[VerifyResult]) -> None:
        """Write the scores of new beams, and the nodes in them that were not drafted."""
        k = selection.nodes.shape[1]
        selected = concat([np.arange(result.row * k, result.row * k + len(result.nodes)) for result in moved])
        fields = concat([result.search.sequence.node_fields(result.search.beam) for result in moved])
        sent = on_device(np.concatenate([selected[None], fields]), self._tree.token.device)
        flat, slots, depths, indices, trie_nodes = sent.unbind(0)
        parents, cum_log_probs = selection.parent_slots.take(flat), selection.cum_log_probs.take(flat)
        self._tree.set_scores(slots, cum_log_probs, None if selection.scores is None else selection.scores.take(flat))
        missing = concat([result.hits for result in moved]) < 0
        if not missing.any():
            return
        if not missing.all():
            new = on_device(np.flatnonzero(missing), slots.device)
            parents, slots, trie_nodes, depths, indices = (part.take(new) for part in (parents, slots, trie_nodes, depths, indices))
        tokens = self._trie.token.index_select(0, trie_nodes)
        self._tree.add_nodes(slots, parents=parents, tokens=tokens, depths=depths, indices=indices)
        self._tree.trie_node.index_copy_(0, slots, trie_nodes)


def _read(levels: Sequence[VerifiedLevel], unread: Sequence[Proposals]) -> list[list[VerifyResult]]:
    """The results of all levels, in one transfer with the proposals that the host has not seen."""
    tensors = [(level.first_log_probs, level.selection.nodes, level.selection.cum_log_probs, level.hits) for level in levels]
    wanted = [tensor for level in tensors for tensor in level if tensor is not None]
    arrays = iter(on_host([tensor for proposals in unread for tensor in proposals.tensors] + wanted))
    for proposals in unread:
        proposals.take(next(arrays), next(arrays), next(arrays))
    results = []
    for level in levels:
        first_log_probs, nodes, cum_log_probs = next(arrays), next(arrays), next(arrays)
        hits = np.full(nodes.shape, -1) if level.hits is None else next(arrays)
        results.append(_results_of(level, first_log_probs, nodes, cum_log_probs, hits))
    return results


def _results_of(
    level: VerifiedLevel, first_log_probs: FloatArray, nodes: IntArray, cum_log_probs: FloatArray, hits: IntArray
) -> list[VerifyResult]:
    """The results of one level from what was read of it; `hits` are -1 where no node was drafted."""
    starts = list(accumulate(level.sizes[:-1], initial=0))
    broken = np.logical_or.reduceat(np.isnan(first_log_probs), starts).tolist()
    found = []
    for row, (search, selected, is_broken) in enumerate(zip(level.searches, (nodes >= 0).sum(1).tolist(), broken, strict=True)):
        depth = search.depth + level.levels_above + 1
        width = min(search.widths[depth], selected)
        beside = slice(width, min(search.selected(depth), selected))
        finished = depth > search.last_depth or not width or is_broken
        found.append(
            VerifyResult(
                search=search,
                row=row,
                depth=depth,
                nodes=nodes[row, :width],
                cum_log_probs=cum_log_probs[row, :width],
                drafted=level.drafted[row],
                hits=hits[row, :width],
                beside=Selected(nodes[row, beside], cum_log_probs[row, beside], hits[row, beside]),
                finite=not is_broken,
                finished=finished,
                accepted=not finished and level.hits is not None and bool((hits[row, :width] >= 0).all()),
            )
        )
    return found
