"""From searches that have come to leaves to lists: joined, blended, capped and explained, as their requests ask.

Invariant: it is called before any slot of them is free, because candidates and explanations are read from the table of what the target has
said of their nodes. Of requests with caps that is read at the end of their first round.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from drafting.array_types import FloatArray
from drafting.trie.item_trie import ItemTrie
from verification.engine.blend import BlendStep, blended
from verification.engine.capped import CappedList, CapStep
from verification.engine.explain import ExplainStep
from verification.engine.items import ranked_items
from verification.engine.reserved import joined
from verification.explanation import Explanation
from verification.request import BeamRequest
from verification.result import BeamResult, BlendedList, RankedItem
from verification.search import BeamSearch
from verification.verifiers.verifier import VerifyResult


@dataclass(frozen=True)
class FoundList:
    """A list that is whole, and the search that has its cost."""

    search: BeamSearch
    items: tuple[RankedItem, ...]
    blend: BlendedList | None
    explanation: Explanation | None

    def result(self, plan: str) -> BeamResult:
        """The answer to its request, made under a plan of that name."""
        request = self.search.request
        return BeamResult(
            request_id=request.request_id,
            items=self.items,
            usage=self.search.usage(plan),
            rule=request.rule,
            thought=None if request.thought is None else request.thought.tokens,
            blend=self.blend,
            explanation=self.explanation,
            tolerance=self.search.tolerance,
        )


@dataclass(frozen=True)
class FurtherRound:
    """A search that begins again, by another request."""

    search: BeamSearch
    request: BeamRequest


class FinishStep:
    """Makes the lists of an engine."""

    def __init__(self, trie: ItemTrie, blending: BlendStep, explaining: ExplainStep) -> None:
        self._trie = trie
        self._blending = blending
        self._explaining = explaining
        self._capping = CapStep(trie)

    def lists(self, whole: Sequence[Sequence[VerifyResult]]) -> list[FoundList | FurtherRound]:
        """The lists of requests whose searches have all ended; for some with caps, the search that goes on.

        Args:
            whole: the results of each request, as `RunningSearches.finish` returns them.
        """
        begun = [self._capping.begun(parts) for parts in whole]
        log_probs = self._blending.log_probs(parts[0].search for parts, capped in zip(whole, begun, strict=True) if capped is None)
        return [
            self._list(parts, log_probs.get(parts[0].search)) if capped is None else self._go_on(parts, capped)
            for parts, capped in zip(whole, begun, strict=True)
        ]

    def _list(self, parts: Sequence[VerifyResult], log_probs: FloatArray | None) -> FoundList | FurtherRound:
        """The list of a request at the end of its first round."""
        request, explanation = parts[0].search.request, self._explaining.explain(parts)
        if request.caps:
            return self._go_on(parts, self._capping.begin(parts, log_probs, explanation))
        blend = None
        if request.blend is None or log_probs is None:
            result = joined(parts)
        else:
            result, blend = blended(request.blend, parts, log_probs)
        return FoundList(result.search, ranked_items(self._trie, request, result.nodes, result.cum_log_probs), blend, explanation)

    def _go_on(self, parts: Sequence[VerifyResult], capped: CappedList) -> FoundList | FurtherRound:
        """The list of a request with caps, or the search that has to begin again for it."""
        if (search := capped.take(parts)) is not None:
            return FurtherRound(search, self._capping.remaining(search, capped))
        return FoundList(parts[0].search, capped.items, capped.blended, capped.explanation)
