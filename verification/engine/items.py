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
    found, places = trie.items_of_leaves(leaves)
    stays = ~np.isin(found, request.excluded_items)
    if request.allowed_items is not None:
        stays &= request.allowed_items.contains(found)
    found, places = found[stays], places[stays]
    return tuple(map(RankedItem, found.tolist(), cum_log_probs[places].tolist(), (places + 1).tolist()))
