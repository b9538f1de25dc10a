"""Lists with reserved places: some of the k places are for certain items only, such as fresh ones.

A request with reserved places is searched twice at the same time: once as if it had none, and once for the reserved places alone, among the
items that may take them. Its list is the identifiers that the second search finds, filled up to k, by score, with the best of the first
search that are not among them.

Invariant: both searches are plain ones over one prompt, which is computed once: the second reads the slots of the first. Neither depends on
the other, so each finds what it would find alone, drafts or not. They begin and end together: the one that has finished waits for the other
without taking part in steps.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from drafting.array_types import DoubleArray, FloatArray, IntArray
from drafting.trie.item_trie import ItemTrie
from verification.request import BeamRequest
from verification.search import NOTHING, BeamSearch, beam_widths
from verification.verifiers.verifier import VerifyResult

Scores = TypeVar("Scores", FloatArray, DoubleArray)


def parts_of(request: BeamRequest) -> list[BeamRequest]:
    """The searches of a request: itself, and one for its reserved places."""
    if (reserved := request.reserved) is None:
        return [request]
    return [
        request,
        replace(
            request,
            k=reserved.places,
            allowed_items=reserved.items,
            cache_key=None,
            reserved=None,
            blend=None,
            retrieved=NOTHING,
            tolerance=None,
        ),
    ]


def nodes_needed(request: BeamRequest, trie: ItemTrie) -> int:
    """Nodes that a request comes to without drafts, roots and those of its candidates included."""
    if request.scored is not None:
        return 1 + request.scored.nodes
    return sum(1 + sum(beam_widths(part, trie)[1:-1]) for part in parts_of(request)) + request.blended_nodes


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

    def cut(self, most_nodes: int | None) -> dict[BeamSearch, int]:
        """The searches that a step does not advance, because it computes no more than so many nodes of a request, with their part of it."""
        found: dict[BeamSearch, int] = {}
        if most_nodes is not None:
            for searches in self._searches.values():
                unfinished = [search for search in searches if search not in self._ended]
                part = max(most_nodes // max(len(unfinished), 1), 1)
                found |= {search: part for search in unfinished if search.sequence.uncomputed_nodes > part}
        return found

    def uncomputed(self, most_nodes: int | None = None) -> int:
        """Tokens of theirs in the next forward, drafts aside, if it computes so many nodes of a request."""
        beyond = sum(search.sequence.uncomputed_nodes - part for search, part in self.cut(most_nodes).items())
        return sum(search.sequence.uncomputed for search in self.unfinished()) - beyond

    def resume(self, search: BeamSearch) -> None:
        """Let a search that has ended go on with the others of its request."""
        self._ended.pop(search, None)

    def finish(self, results: Iterable[VerifyResult]) -> list[list[VerifyResult]]:
        """The requests whose searches have all ended with these, as the results of each; halves of others are kept."""
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


def joined(parts: Sequence[VerifyResult], every: bool = False) -> VerifyResult:
    """The list of a request as one result; with `every`, all that its searches have found, however many."""
    general, *others = parts
    if not others:
        return general
    (reserved,) = others
    general.search.absorb(reserved.search)
    k = len(general.nodes) + len(reserved.nodes) if every else general.search.widths[-1]
    nodes, cum_log_probs = merge(general.nodes, general.cum_log_probs, reserved.nodes, reserved.cum_log_probs, k)
    return replace(general, nodes=nodes, cum_log_probs=cum_log_probs)


def merge(general: IntArray, general_scores: Scores, reserved: IntArray, reserved_scores: Scores, k: int) -> tuple[IntArray, Scores]:
    """Join two lists, `[leaves]` each and best first: all of `reserved`, filled up to k with the best others of `general`.

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
