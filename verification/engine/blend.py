"""Blended lists: the candidates of a neighbour model beside those of the beam, all with the target's log-probabilities.

The prefixes of the candidates are in the tree of their request's search from its beginning, as if they were drafted. So the forward that
computes the prompt scores the candidates, too, and where the target's beams agree with them, they save forwards.

Invariant: candidates do not change the list that the target finds, for drafts change no list; they join that list when both are known. A
candidate that may not be returned, or that the target can't score, does not join.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from drafting.array_types import FloatArray, IntArray
from verification.blend import Blend
from verification.engine.candidates import CandidateTree
from verification.engine.reserved import joined, merge
from verification.result import BlendedList, Source
from verification.search import BeamSearch
from verification.verifiers.verifier import VerifyResult


class BlendStep:
    """Grows the trees of blended requests, and blends their lists."""

    def __init__(self, candidates: CandidateTree) -> None:
        self._candidates = candidates

    def grow(self, search: BeamSearch, blend: Blend) -> None:
        """Add the candidates' prefixes to the tree of a search that has not begun."""
        if blend.prefixes:
            self._candidates.grow(search.sequence, blend.paths)

    def log_probs(self, searches: Iterable[BeamSearch]) -> dict[BeamSearch, FloatArray]:
        """The log-probabilities of the candidates of those searches that have a blend, `[candidates]` each, as their trees have them."""
        asked = {search: (search.sequence, blend.paths) for search in searches if (blend := search.request.blend) is not None}
        return dict(zip(asked, self._candidates.log_probs(list(asked.values())), strict=True))


def blended(blend: Blend, parts: Sequence[VerifyResult], log_probs: FloatArray) -> tuple[VerifyResult, BlendedList]:
    """The k best of the target's own list and the candidates, or every one; with reserved places, so many of those that may take them at
    least.

    Args:
        parts: the results of a request's searches.
        log_probs: `[candidates]`, -inf or NaN for one that does not join.
    """
    found = joined(parts, every=True)
    candidates = blend.paths[np.isfinite(log_probs), -1]
    joins = ~np.isin(candidates, found.nodes)
    nodes = np.concatenate([found.nodes, candidates[joins]])
    totals = np.concatenate([found.cum_log_probs, log_probs[np.isfinite(log_probs)][joins]])
    ranking = blend.ranking(nodes, totals)
    order = np.argsort(-ranking, kind="stable")
    k, *places = (part.search.widths[-1] for part in parts)
    k = len(order) if blend.every else k
    kept = order[:k]
    if places:
        reserved = order[parts[1].search.eligibility.allowed(nodes[order])][: places[0]]
        kept, _ = merge(order, ranking[order], reserved, ranking[reserved], k)
    told = BlendedList(tuple(ranking[kept].tolist()), sources_of(nodes[kept], found.nodes, candidates))
    return replace(found, nodes=nodes[kept], cum_log_probs=totals[kept]), told


def sources_of(leaves: IntArray, found: IntArray, candidates: IntArray) -> tuple[Source, ...]:
    """Which models propose each of some leaves: `found` are those of the target, `candidates` those of the neighbour model."""
    sources = np.where(np.isin(leaves, candidates), np.where(np.isin(leaves, found), 2, 1), 0)
    return tuple(_SOURCES[source] for source in sources.tolist())


_SOURCES = (Source.MODEL, Source.NEIGHBOURS, Source.BOTH)
