"""The items of a finished search: those of the identifiers that it has found, as far as the request may have them.

Invariant: items of one identifier share its rank and its score. There is no loop over a list but the one that makes its lines.
"""

import numpy as np

from drafting.array_types import FloatArray, IntArray
from drafting.trie.arrays import TrieArrays
from verification.request import BeamRequest
from verification.result import RankedItem


def ranked_items(trie: TrieArrays, request: BeamRequest, leaves: IntArray, cum_log_probs: FloatArray) -> tuple[RankedItem, ...]:
    """The items of leaves, `[n]` trie nodes with their log-probabilities, best first."""
    found, places = eligible_items(trie, request, leaves)
    return tuple(map(RankedItem, found.tolist(), cum_log_probs[places].tolist(), (places + 1).tolist()))


def eligible_items(trie: TrieArrays, request: BeamRequest, leaves: IntArray) -> tuple[IntArray, IntArray]:
    """The items of leaves that the request may have, leaf by leaf in the catalog's order, and for each of them the index of its leaf."""
    items, places = trie.items_of_leaves(leaves)
    found = items.astype(np.int64)
    stays = ~np.isin(found, request.excluded_items)
    if request.allowed_items is not None:
        stays &= request.allowed_items.contains(found)
    return found[stays], places[stays]
