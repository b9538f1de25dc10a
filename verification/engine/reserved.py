"""Lists with reserved places: so many of the k for certain items only, such as fresh ones.

A request with reserved places is searched twice at a time: once as if it had none, and once for the reserved places alone, among the items
that may take them. Its list is the identifiers that the second search finds, filled up to k with the best of the first that are not among
them, by score.

Invariant: both searches are plain ones over one prompt, which is computed once: the second reads the slots of the first. Neither knows of
the other, so each finds what it would find alone, drafts or not; they begin and end together, and what one has finished waits for the
other without taking part in steps.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from drafting.trie.item_trie import ItemTrie
from verification.request import BeamRequest
from verification.search import BeamSearch, beam_widths
from verification.verifiers.verifier import FinishedSearch

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


def reserved_request(request: BeamRequest) -> BeamRequest | None:
    """The search for the reserved places of a request; None if it has none."""
    if (reserved := request.reserved) is None:
        return None
    return replace(
        request,
        request_id=f"{request.request_id}/reserved",
        k=reserved.places,
        allowed_items=reserved.items,
        cache_key=None,
        reserved=None,
    )


def nodes_needed(request: BeamRequest, trie: ItemTrie) -> int:
    """Nodes that a request comes to without drafts, the roots of its one or two searches included."""
    needed = 1 + sum(beam_widths(request, trie)[1:-1])
    second = reserved_request(request)
    return needed if second is None else needed + nodes_needed(second, trie)


@dataclass
class _Pair:
    """The two searches of one request, and what they have come to."""

    general: BeamSearch
    reserved: BeamSearch
    general_end: FinishedSearch | None = None
    reserved_end: FinishedSearch | None = None

    @property
    def unfinished(self) -> list[BeamSearch]:
        ends = ((self.general, self.general_end), (self.reserved, self.reserved_end))
        return [search for search, end in ends if end is None]


class ReservedSearches:
    """The pairs of searches that run."""

    def __init__(self) -> None:
        self._pairs: dict[str, _Pair] = {}
        self._owner: dict[str, str] = {}

    def open(self, general: BeamSearch, reserved: BeamSearch) -> None:
        """Runs two searches as the halves of one list."""
        name = general.request.request_id
        self._pairs[name] = _Pair(general, reserved)
        self._owner[reserved.request.request_id] = name

    def close(self, request_id: str) -> BeamSearch | None:
        """Forgets a request's pair, and returns its second search to be ended; None if the request has no reserved places."""
        if (pair := self._pairs.pop(request_id, None)) is None:
            return None
        del self._owner[pair.reserved.request.request_id]
        return pair.reserved

    def unfinished(self, searches: Iterable[BeamSearch]) -> list[BeamSearch]:
        """What a step advances for these requests' first searches: those that have no end yet, second ones too."""
        if not self._pairs:
            return list(searches)
        found = []
        for search in searches:
            pair = self._pairs.get(search.request.request_id)
            found += [search] if pair is None else pair.unfinished
        return found

    def join(self, finished: Iterable[FinishedSearch]) -> list[FinishedSearch]:
        """The lists that are whole once these searches have ended; halves of others are kept."""
        if not self._pairs:
            return list(finished)
        whole = []
        for end in finished:
            name = end.search.request.request_id
            pair = self._pairs.get(self._owner.get(name, name))
            if pair is None:
                whole.append(end)
                continue
            if name in self._owner:
                pair.reserved_end = end
            else:
                pair.general_end = end
            if pair.general_end is not None and pair.reserved_end is not None:
                whole.append(_joined(pair.general_end, pair.reserved_end))
        return whole


def _joined(general: FinishedSearch, reserved: FinishedSearch) -> FinishedSearch:
    general.search.absorb(reserved.search)
    leaves, log_probs = merge(general.leaves, general.log_probs, reserved.leaves, reserved.log_probs, general.search.widths[-1])
    return FinishedSearch(general.search, leaves, log_probs)


def merge(
    general: IntArray, general_scores: FloatArray, reserved: IntArray, reserved_scores: FloatArray, k: int
) -> tuple[IntArray, FloatArray]:
    """Joins two lists, `[leaves]` each and best first: all of `reserved`, filled up to k with the best others of `general`.

    Returns:
        at most k leaves and their scores, best first; what only one list has comes behind what is in the general one at equal scores, so
        that a general list which has all of the reserved one comes out as it is.
    """
    is_reserved = np.isin(general, reserved)
    others = np.cumsum(~is_reserved)
    stays = is_reserved | (others <= k - len(reserved))
    missing = ~np.isin(reserved, general)
    leaves = np.concatenate([general[stays], reserved[missing]])
    scores = np.concatenate([general_scores[stays], reserved_scores[missing]])
    order = np.argsort(-scores, kind="stable")
    return leaves[order], scores[order]
