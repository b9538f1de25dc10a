"""The searches that run in an engine, by request, and those of them that the next step advances.

Invariant: the searches of a request begin and end together: one that has finished waits for the other without taking part in steps.
"""

from collections.abc import Iterable

from verification.search import BeamSearch
from verification.verifiers.verifier import VerifyResult


class RunningSearches:
    """The searches of an engine by request: one each, or two."""

    def __init__(self) -> None:
        self._searches: dict[str, list[BeamSearch]] = {}
        self._ended: dict[BeamSearch, VerifyResult] = {}

    def __len__(self) -> int:
        return len(self._searches)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._searches

    def add(self, searches: list[BeamSearch]) -> None:
        """Run the searches of one request."""
        self._searches[searches[0].request.request_id] = searches

    def remove(self, request_id: str) -> list[BeamSearch]:
        """Forget a request and return its searches; none if no such request runs."""
        searches = self._searches.pop(request_id, [])
        for search in searches:
            self._ended.pop(search, None)
        return searches

    def unfinished(self) -> list[BeamSearch]:
        """The searches that a step advances."""
        return [search for searches in self._searches.values() for search in searches if search not in self._ended]

    def pieces(self, most_nodes: int | None) -> dict[BeamSearch, int]:
        """The searches of which the next forward computes only a piece of a level, and how many nodes that is; they are not verified.

        Args:
            most_nodes: how many nodes of one request are computed at most; None for all.
        """
        found: dict[BeamSearch, int] = {}
        if most_nodes is not None:
            for searches in self._searches.values():
                unfinished = [search for search in searches if search not in self._ended]
                piece = max(most_nodes // max(len(unfinished), 1), 1)
                found |= {search: piece for search in unfinished if search.sequence.uncomputed_nodes > piece}
        return found

    def uncomputed(self, most_nodes: int | None = None) -> int:
        """Tokens of the searches in the next forward, drafts aside, if it computes at most so many nodes of a request."""
        beyond = sum(search.sequence.uncomputed_nodes - piece for search, piece in self.pieces(most_nodes).items())
        return sum(search.sequence.uncomputed for search in self.unfinished()) - beyond

    def resume(self, search: BeamSearch) -> None:
        """Let a search that has ended go on with the others of its request."""
        self._ended.pop(search, None)

    def finish(self, results: Iterable[VerifyResult]) -> list[list[VerifyResult]]:
        """The results of each request whose searches have all ended by now; the result of a search whose partner still runs is kept."""
        whole = []
        for result in results:
            searches = self._searches[result.search.request.request_id]
            if len(searches) == 1:
                whole.append([result])
                continue
            self._ended[result.search] = result
            if all(search in self._ended for search in searches):
                whole.append([self._ended[search] for search in searches])
        return whole
