"""Embeddings of items from interactions: items are alike if they say the same of what users meet beside them.

Invariant: only the interactions that are given count. Give the training part, or identifiers will know what a model is evaluated on.

What items say of each other are the weights of EASE, whose factors make identifiers from which targets learn far more than from plain
counts (docs/alignment.md). Where there are too many items for its dense inverse, it is normalised co-occurrence within a window.
Up to a constant, its logarithm is the pointwise mutual information that item2vec (arXiv 1603.04259) factorises (Levy and Goldberg,
"Neural Word Embedding as Implicit Matrix Factorization", 2014). Without the logarithm, pairs that nobody met are zeros and the matrix is
sparse.
"""

import numpy as np
from scipy.sparse import csr_array, diags_array

from drafting.alignment.data.interactions import Interactions
from drafting.array_types import FloatArray
from drafting.embeddings.factors import left_factors, unit_rows
from drafting.neighbours.build import NEIGHBOURS, ease, ease_refusal, largest

WINDOW = 20
L2 = 100.0


def from_interactions(known: Interactions, items: int, dims: int, seed: int = 0) -> FloatArray:
    """Embeddings of unit length `[items, dims]`, fewer dims where there are few items; zeros for an item that was met with no other.

    Args:
        known: interactions of the training part.
        items: number of items in the catalog.
    """
    weights = from_counts(co_occurrence(known, items)) if ease_refusal(items) else from_ease(known, items)
    return unit_rows(left_factors(weights, dims, seed, power=0.5))


def from_ease(known: Interactions, items: int) -> csr_array:
    """`[items, items]`: what speaks for each item, the transposed weights of EASE, of which each item that speaks keeps its largest."""
    return csr_array(largest(ease(known, items, L2), NEIGHBOURS).T)


def from_counts(counts: csr_array) -> csr_array:
    """`[items, items]`: counts of pairs over what their two items were met with in all, c_ij / ((c_i + 1) * (c_j + 1)), where c_i is the
    sum of the counts of i."""
    # One is added so that pairs met once, of two items hardly met otherwise, do not outweigh all others.
    scale = diags_array(1.0 / (counts.sum(axis=1) + 1.0))
    return csr_array(scale @ counts @ scale)


def co_occurrence(known: Interactions, items: int, window: int = WINDOW) -> csr_array:
    """How often two items were met by one user, as symmetric `[items, items]` float64 with zeros on the diagonal.

    A pair with n - 1 interactions between the two counts 1 / n, and not at all from `window` on.
    """
    owners = known.owners
    counts = csr_array((items, items), dtype=np.float64)
    for distance in range(1, min(window, int(known.lengths.max(initial=0)))):
        same = owners[:-distance] == owners[distance:]
        pairs = known.items[:-distance][same], known.items[distance:][same]
        counts += csr_array((np.full(len(pairs[0]), 1 / distance), pairs), shape=(items, items))
    counts = csr_array(counts + counts.T)
    counts.setdiag(0.0)
    counts.eliminate_zeros()
    return counts
