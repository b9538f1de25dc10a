"""Embeddings of two sources as one.

Invariant: the product of two mixed embeddings is the weighted mean of the products of their sources, so a weight says how much of the
likeness of two items comes from each. An item that one source knows nothing of is completed from the items that the other finds like it.
"""

import numpy as np

from drafting.array_types import FloatArray
from drafting.embeddings.factors import unit_rows

_LIKE = 10
# Products at a time: with what finds the largest of them they take 16 bytes each.
_CELLS = 1 << 24
_MOST_ROWS = 1024


def mixed(behaviour: FloatArray, text: FloatArray, text_weight: float) -> FloatArray:
    """Embeddings `[items, dims of both]`.

    Args:
        behaviour, text: embeddings of unit length; zeros for items that they know nothing of.
        text_weight: share of the text, from 0 to 1.
    """
    behaviour, text = completed(behaviour, text), completed(text, behaviour)
    shares = np.float32(np.sqrt(1 - text_weight)), np.float32(np.sqrt(text_weight))
    return np.concatenate([shares[0] * behaviour, shares[1] * text], axis=1)


def completed(known: FloatArray, other: FloatArray) -> FloatArray:
    """`known` with its rows of zeros filled: by the mean of the items most like them in `other`; these rows, too, have length one.

    Zeros stay where `other` knows nothing either.
    """
    has = known.any(axis=1)
    missing = np.flatnonzero(~has & other.any(axis=1))
    given = np.flatnonzero(has)
    if not len(missing) or not len(given):
        return known
    filled, others, count = known.copy(), other[given].T, min(_LIKE, len(given))
    step = max(1, min(_MOST_ROWS, _CELLS // len(given)))
    for start in range(0, len(missing), step):
        rows = missing[start : start + step]
        likeness = other[rows] @ others
        nearest = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        weights = np.maximum(np.take_along_axis(likeness, nearest, axis=1), 0)
        filled[rows] = unit_rows(np.einsum("ij,ijk->ik", weights, known[given[nearest]]).astype(np.float32))
    return filled
