"""What the target chooses at a level, as tensors on the device.

Invariant: a choice depends on the target's own log-probabilities and the request's rule alone, that of a relaxed search also on what was
drafted for it, as the paper has it; never on who else is judged. Where the host would have to wait for the device to learn whether a level
is accepted, the levels below are judged as if it were, so that the host reads once a step; what is chosen below a level that turns out not
to be accepted means nothing, and nobody keeps it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.beam.expand import NEGATIVE_INFINITY, Candidates, Frontier, Selection, find_nodes, flatten_requests, neighbours, select
from drafting.beam.gumbel import Stream
from drafting.beam.ranking import BatchRules, Ratings, rank
from drafting.beam.rule import Verification
from drafting.beam.tree import TokenTree
from drafting.device import concat, is_async, on_device, on_host, pad_stack
from drafting.plans.drafters import BeamDrafter
from drafting.trie.item_trie import ItemTrie
from verification.search import BeamSearch
from verification.verifiers.continuation_table import ContinuationTable
from verification.verifiers.relaxed import LevelNoise, verify_relaxed
from verification.verifiers.strict import Verdict, verify_strictly

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DraftedNodes:
    """Nodes of one level that the target has scored.

    Attributes:
        slots: `[searches, most]` int64; any slot pads.
        trie_nodes: `[searches, most]` int64, where they stand in the trie; -2 pads.
    """

    slots: Tensor
    trie_nodes: Tensor


@dataclass(frozen=True)
class VerifiedLevel:
    """The next level of some searches.

    Attributes:
        depths: of their beams.
        drafted: the columns of each one's nodes at the level that the target has scored.
        there: the same nodes on the device; None if nothing was drafted for any search.
        verdict: the prefixes chosen, and where they stand among the drafted ones.
        ends: whether a search ends with the level.
    """

    searches: Sequence[BeamSearch]
    depths: Sequence[int]
    drafted: Sequence[IntArray]
    there: DraftedNodes | None
    verdict: Verdict
    ends: bool


@dataclass(frozen=True)
class Chosen:
    """The verdict on a level, on the host.

    Attributes:
        nodes: `[searches, k]` int64, the prefixes' places in the trie; -1 where there is none.
        places: `[searches, k]` int64, as in `Verdict`.
        log_probs: `[searches, k]` float32; None if no search ends with the level.
    """

    nodes: IntArray
    places: IntArray | None
    log_probs: npt.NDArray[np.float32] | None


def read_levels(levels: Sequence[VerifiedLevel]) -> list[Chosen]:
    """The verdicts on the host, all in one transfer."""
    wanted: list[Tensor] = []
    for level in levels:
        wanted.append(level.verdict.selection.nodes)
        if level.verdict.places is not None:
            wanted.append(level.verdict.places)
        if level.ends:
            wanted.append(level.verdict.selection.log_probs)
    arrays = iter(on_host(wanted))
    return [
        Chosen(next(arrays), None if level.verdict.places is None else next(arrays), next(arrays) if level.ends else None)
        for level in levels
    ]


@dataclass(frozen=True)
class _Stand:
    """Some searches before a level of theirs is judged.

    Attributes:
        depths: of their beams.
        frontier: their beams.
        trie_nodes: `[prefixes]` int64, where these stand in the trie.
        rules: theirs; None if all are strict.
        ratings: of the beams' prefixes; -inf for a place that no prefix has come to, so nothing that follows is ever chosen.
        known: `[prefixes]` bool, those of relaxed searches of which the draft has said how it would go on; None if there are none.
    """

    searches: Sequence[BeamSearch]
    depths: Sequence[int]
    frontier: Frontier
    trie_nodes: Tensor
    rules: BatchRules | None
    ratings: Ratings
    known: Tensor | None


class LevelVerifier:
    """Chooses for all running requests at once."""

    def __init__(self, tree: TokenTree, trie: ItemTrie, table: ContinuationTable) -> None:
        self._tree = tree
        self._trie = trie
        self._table = table
        self._looks_ahead = is_async(tree.token.device)

    def verify(self, searches: Sequence[BeamSearch], drafter: BeamDrafter | None) -> list[VerifiedLevel]:
        """The next level of all searches; where reading waits, also the level below of those for which this one was drafted, and so on.

        Args:
            drafter: knows what the draft thought, which relaxed searches compare with.
        """
        levels = [self._verify(self._stand(searches), drafter)]
        while self._looks_ahead and (stand := self._stand_below(levels[-1])) is not None:
            levels.append(self._verify(stand, drafter))
        return levels

    def _stand(self, searches: Sequence[BeamSearch]) -> _Stand:
        device = self._tree.token.device
        frontier = Frontier.of([search.columns.slots[search.beam] for search in searches], device)
        rules = BatchRules.of([search.request.rule for search in searches], device)
        known = None
        if rules is not None:
            compared = concat([_compared(search, search.beam) for search in searches])
            known = on_device(compared, device) if compared.any() else None
        trie_nodes = on_device(concat([search.columns.trie_nodes[search.beam] for search in searches]), device)
        ratings = Ratings.of(self._tree, frontier.slots, rules)
        return _Stand(searches, [search.depth for search in searches], frontier, trie_nodes, rules, ratings, known)

    def _stand_below(self, level: VerifiedLevel) -> _Stand | None:
        """Where searches stand once the level is accepted; None if there are none for which it was drafted."""
        if level.there is None or level.verdict.places is None:
            return None
        rows = [row for row, columns in enumerate(level.drafted) if len(columns)]
        device = self._tree.token.device
        searches, depths = [level.searches[row] for row in rows], [level.depths[row] + 1 for row in rows]
        widths = [search.widths[depth] for search, depth in zip(searches, depths, strict=True)]
        selection = level.verdict.selection
        kept = selection.nodes.shape[1]
        chosen = on_device(np.concatenate([row * kept + np.arange(width) for row, width in zip(rows, widths, strict=True)]), device)
        # One that is not among the drafted is taken for another, wholly: either its search is not accepted, or there is no such prefix.
        places = level.verdict.places.clamp(min=0)
        rules, known = BatchRules.of([search.request.rule for search in searches], device), None
        if rules is not None:
            compared = pad_stack([_compared(search, columns) for search, columns in zip(level.searches, level.drafted, strict=True)], False)
            known = on_device(compared, device).gather(1, places).take(chosen) if compared.any() else None
        slots, trie_nodes = (part.gather(1, places).take(chosen) for part in (level.there.slots, level.there.trie_nodes))
        log_probs = selection.log_probs.take(chosen)
        ratings = Ratings(log_probs, log_probs if rules is None else selection.scores.take(chosen))
        return _Stand(searches, depths, Frontier(slots, tuple(widths)), trie_nodes, rules, ratings, known)

    def _verify(self, stand: _Stand, drafter: BeamDrafter | None) -> VerifiedLevel:
        """The choice for one level, of as many prefixes as the widest search keeps."""
        pairs = list(zip(stand.searches, stand.depths, strict=True))
        drafted = [search.drafted_at(depth + 1) for search, depth in pairs]
        there = self._drafted_nodes(stand.searches, drafted) if any(map(len, drafted)) else None
        trie_nodes = None if there is None else there.trie_nodes
        found = self._table.read(stand.frontier, stand.trie_nodes, max(self._trie.max_children[depth] for depth in stand.depths))
        candidates = rank(found, stand.ratings, stand.frontier, stand.rules, Stream.RESIDUAL)
        widths = [search.widths[depth + 1] for search, depth in pairs]
        verdict = verify_strictly(candidates, stand.frontier, trie_nodes, max(widths))
        if stand.rules is not None and any(map(_is_relaxed, stand.searches)):
            relaxed = self._relaxed(stand, stand.rules, candidates, trie_nodes, drafter, widths)
            selection = _either(stand.rules.relaxed[:, None], relaxed, verdict.selection)
            verdict = Verdict(selection, None if trie_nodes is None else find_nodes(selection.nodes, trie_nodes))
        ends = any(search.last_depth == depth for search, depth in pairs)
        return VerifiedLevel(stand.searches, stand.depths, drafted, there, verdict, ends)

    def _drafted_nodes(self, searches: Sequence[BeamSearch], columns: Sequence[IntArray]) -> DraftedNodes:
        """Some nodes of each search, of at least one."""
        rows = [(search.columns.slots[row], search.columns.trie_nodes[row]) for search, row in zip(searches, columns, strict=True)]
        padded = np.stack([pad_stack([slots for slots, _ in rows], 0), pad_stack([nodes for _, nodes in rows], -2)])
        return DraftedNodes(*on_device(padded, self._tree.token.device).unbind(0))

    def _relaxed(
        self,
        stand: _Stand,
        rules: BatchRules,
        candidates: Candidates,
        there: Tensor | None,
        drafter: BeamDrafter | None,
        widths: Sequence[int],
    ) -> Selection:
        """The choice by relaxed verification, for every search as if it had asked for it."""
        frontier, kept = stand.frontier, max(widths)
        width = candidates.scores.shape[1]
        draft = torch.full_like(candidates.log_probs, NEGATIVE_INFINITY)
        if drafter is not None and stand.known is not None:
            # Where the target has no continuation the draft has none: what stands there is older, of a wider batch or another prefix.
            compared = stand.known[:, None] & (candidates.log_probs > NEGATIVE_INFINITY)
            draft = torch.where(compared, drafter.totals(frontier.slots, width), draft)
        target = flatten_requests(candidates.log_probs, frontier, kept)
        below = neighbours(candidates.first, width)
        nodes = torch.nn.functional.pad(below[frontier.rows].flatten(1), (0, target.shape[1] - frontier.rows.shape[1] * width))
        places = verify_relaxed(
            target,
            flatten_requests(draft, frontier, kept),
            torch.zeros_like(nodes, dtype=torch.bool) if there is None else find_nodes(nodes, there) >= 0,
            LevelNoise.of(rules.seeds, nodes),
            on_device(np.array(widths), self._tree.token.device),
            kept,
        )
        return select(candidates, frontier, flatten_requests(candidates.scores, frontier, kept), places)


def _is_relaxed(search: BeamSearch) -> bool:
    return search.request.rule.verification is Verification.RELAXED


def _compared(search: BeamSearch, columns: IntArray) -> npt.NDArray[np.bool_]:
    """Whether the target's opinion of what follows some nodes is compared with the draft's."""
    return search.columns.drafted[columns] & _is_relaxed(search)


def _either(first: Tensor, one: Selection, other: Selection) -> Selection:
    """`one` for the requests for which `first` (`[requests, 1]` bool) is true, `other` for the rest."""
    return Selection(
        parents=torch.where(first, one.parents, other.parents),
        nodes=torch.where(first, one.nodes, other.nodes),
        scores=torch.where(first, one.scores, other.scores),
        log_probs=torch.where(first, one.log_probs, other.log_probs),
    )
