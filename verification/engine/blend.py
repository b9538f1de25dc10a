"""Blended lists: the candidates of a neighbour model beside those of the beam, all with the target's log-probabilities.

The prefixes of the candidates are in the tree of their request's search from its beginning, as if they were drafted. So the forward that
computes the prompt scores the candidates, too, and where the target's beams agree with them, they save forwards.

Invariant: the target's list is what it is without them, for drafts change no list; they only join it when both are known. A candidate that
may not be returned, or that the target can't score, does not join.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from drafting.array_types import FloatArray
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

    def lists(self, whole: Sequence[Sequence[VerifyResult]]) -> list[tuple[VerifyResult, BlendedList | None]]:
        """The lists of requests whose searches have all ended, blended where they ask for it; call it before their slots are free.

        Args:
            whole: the results of each request, as `RunningSearches.finish` returns them.
        """
        firsts = [parts[0].search for parts in whole]
        asked = [(search.sequence, blend.paths) for search in firsts if (blend := search.request.blend) is not None]
        log_probs = iter(self._candidates.log_probs(asked))
        return [
            (joined(parts), None) if (blend := parts[0].search.request.blend) is None else blended(blend, parts, next(log_probs))
            for parts in whole
        ]


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
    sources = np.where(np.isin(nodes[kept], candidates), np.where(kept < len(found.nodes), 2, 1), 0)
    told = BlendedList(tuple(ranking[kept].tolist()), tuple(_SOURCES[source] for source in sources.tolist()))
    return replace(found, nodes=nodes[kept], cum_log_probs=totals[kept]), told


_SOURCES = (Source.MODEL, Source.NEIGHBOURS, Source.BOTH)
