"""Lists with reserved places: some of the k places are for certain items only, such as fresh ones.

A request with reserved places is searched twice at the same time: once as if it had none, and once for the reserved places alone, among the
items that may take them. Its list is the identifiers that the second search finds, filled up to k, by score, with the best of the first
search that are not among them.

Invariant: both searches are plain ones over one prompt, which is computed once: the second reads the slots of the first. Neither depends on
the other, so each finds what it would find alone, drafts or not. They begin and end together: the one that has finished waits for the other
without taking part in steps.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from drafting.array_types import DoubleArray, FloatArray, IntArray
from drafting.trie.item_trie import ItemTrie
from verification.request import BeamRequest
from verification.search import NOTHING, beam_widths
from verification.verifiers.verifier import VerifyResult

Scores = TypeVar("Scores", FloatArray, DoubleArray)


def split_request(request: BeamRequest) -> list[BeamRequest]:
    """A request as one for each of its searches: itself, and one for its reserved places if it has some."""
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
    """The most tree nodes of a request without drafts: with the roots of its searches, and with the prefixes of its candidates."""
    if request.scored is not None:
        return 1 + request.scored.nodes
    return sum(1 + sum(beam_widths(part, trie)[1:-1]) for part in split_request(request)) + request.blended_nodes


def joined(parts: Sequence[VerifyResult], every: bool = False) -> VerifyResult:
    """Join the results of a request's searches into one: its list, or with `every` all that they have found."""
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
        at most k leaves and their scores, best first. At equal scores those of the general list come first, so that a general list which
        has all of the reserved one comes out as it is.
    """
    is_reserved = np.isin(general, reserved)
    others = np.cumsum(~is_reserved)
    stays = is_reserved | (others <= k - len(reserved))
    missing = ~np.isin(reserved, general)
    leaves = np.concatenate([general[stays], reserved[missing]])
    scores = np.concatenate([general_scores[stays], reserved_scores[missing]])
    order = np.argsort(-scores, kind="stable")
    return leaves[order], scores[order]
