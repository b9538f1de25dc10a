"""How good lists are: recall and normalised discounted cumulative gain, with all held-out items of a user as labels."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def recall(lists: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], k: int) -> FloatArray:
    """Per user, the part of the labels among the first k items."""
    return np.array([len(set(found[:k]) & set(wanted)) / len(wanted) for found, wanted in zip(lists, labels, strict=True)])


def ndcg(lists: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], k: int) -> FloatArray:
    """Per user, the sum of 1 / log2(1 + rank) over the labels found among the first k items, over what the best list would have."""
    gains = 1.0 / np.log2(2.0 + np.arange(k))
    best = np.cumsum(gains)
    rows = []
    for found, wanted in zip(lists, labels, strict=True):
        hits = np.isin(np.asarray(found[:k], np.int64), np.asarray(wanted, np.int64))
        rows.append(float(gains[: len(hits)][hits].sum() / best[min(k, len(wanted)) - 1]))
    return np.array(rows)
