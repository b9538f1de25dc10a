"""Verification, the second half of speculative decoding: moves beams down as many levels as the target has log-probabilities for.

Invariant: all requests of a step are verified together, level by level; a request whose new beam was drafted goes on to its next level, the
others wait for the next forward. What was verified below a rejected level leaves no trace.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drafting.beam.expand import Selection
from drafting.beam.tree import TokenTree
from drafting.device import concat, on_device, on_host
from drafting.plans.drafters import BeamDrafter
from drafting.trie.item_trie import ItemTrie
from verification.search import BeamSearch
from verification.slots.engine_slots import EngineSlots
from verification.verifiers.continuation_table import ContinuationTable
from verification.verifiers.level import LevelVerifier, VerifiedLevel

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class VerifyResult:
    """The prefixes that the target selects for one search at one level, on the host, best first.

    Attributes:
        row: of the search in the level.
        depth: of the prefixes.
        nodes: `[n]` int64 trie nodes.
        cum_log_probs: `[n]` float32.
        hits: `[n]` int64, where they stand among the drafted; -1 for one that was not drafted.
        finished: whether the search ends with these prefixes.
        accepted: whether it goes on and all were drafted, so that the next level can be verified without a forward.
    """

    search: BeamSearch
    row: int
    depth: int
    nodes: IntArray
    cum_log_probs: FloatArray
    hits: IntArray
    finished: bool
    accepted: bool


class Verifier:
    """Verifies levels for all running requests at once."""

    def __init__(self, tree: TokenTree, trie: ItemTrie, table: ContinuationTable, slots: EngineSlots) -> None:
        self._tree = tree
        self._trie = trie
        self._slots = slots
        self._levels = LevelVerifier(tree, trie, table)

    def verify(self, searches: Sequence[BeamSearch], drafter: BeamDrafter | None) -> list[VerifyResult]:
        """Takes every search as far down as it can go; the beams of unfinished ones are in the tree for the next forward.

        Args:
            drafter: holds the draft's log-probabilities, with which relaxed searches compare.
        """
        results: list[VerifyResult] = []
        while searches:
            levels = self._levels.verify(searches, drafter)
            for level, found in zip(levels, _read(levels), strict=True):
                undecided = set(searches)
                decided = [result for result in found if result.search in undecided]
                results += decided
                self._advance(level, decided, last=level is levels[-1])
                searches = [result.search for result in decided if result.accepted]
        return results

    def _advance(self, level: VerifiedLevel, results: Sequence[VerifyResult], last: bool) -> None:
        """Makes the selected prefixes the beams, and writes those beams that the next forward or level reads into the tree."""
        moved = []
        for result in results:
            if result.finished:
                continue
            result.search.descend(result.nodes, level.drafted[result.row], result.hits, self._slots.nodes.allocate)
            # A beam whose next level has been verified is not read again.
            if last or not result.accepted:
                moved.append(result)
        if moved:
            self._write(level.selection, moved)

    def _write(self, selection: Selection, moved: Sequence[VerifyResult]) -> None:
        """Writes the scores of new beams, and the nodes in them that were not drafted."""
        k = selection.nodes.shape[1]
        flat = concat([np.arange(result.row * k, result.row * k + len(result.nodes)) for result in moved])
        fields = concat([result.search.sequence.node_fields(result.search.beam) for result in moved])
        indices, slots, nodes, depths, positions = on_device(np.concatenate([flat[None], fields]), self._tree.token.device).unbind(0)
        parts = [selection.parent_slots, selection.cum_log_probs, *([] if selection.scores is None else [selection.scores])]
        # Rows ascend, so as many indices as there are selected prefixes are all of these in order.
        whole = len(flat) == selection.nodes.numel()
        parents, cum_log_probs, *scores = (part.flatten() if whole else part.take(indices) for part in parts)
        self._tree.set_scores(slots, cum_log_probs, scores[0] if scores else None)
        missing = concat([result.hits for result in moved]) < 0
        if not missing.any():
            return
        if not missing.all():
            new = on_device(np.flatnonzero(missing), slots.device)
            parents, slots, nodes, depths, positions = (part.index_select(0, new) for part in (parents, slots, nodes, depths, positions))
        tokens = self._trie.token.index_select(0, nodes)
        self._tree.add_nodes(slots, parents=parents, tokens=tokens, depths=depths, indices=positions)


def _read(levels: Sequence[VerifiedLevel]) -> list[list[VerifyResult]]:
    """The results of levels on the host, all in one transfer."""
    wanted = [(level.selection.nodes, level.selection.cum_log_probs, level.hits) for level in levels]
    arrays = iter(on_host([tensor for level in wanted for tensor in level if tensor is not None]))
    results = []
    for level in levels:
        nodes, cum_log_probs = next(arrays), next(arrays)
        hits = np.full_like(nodes, -1) if level.hits is None else next(arrays)
        found = []
        for row, (search, selected) in enumerate(zip(level.searches, (nodes >= 0).sum(1).tolist(), strict=True)):
            depth = search.depth + level.ahead + 1
            width = min(search.widths[depth], selected)
            kept = hits[row, :width]
            finished = depth > search.last_depth or not width
            accepted = level.hits is not None and not finished and bool((kept >= 0).all())
            found.append(VerifyResult(search, row, depth, nodes[row, :width], cum_log_probs[row, :width], kept, finished, accepted))
        results.append(found)
    return results
