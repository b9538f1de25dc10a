"""Recall and NDCG (normalised discounted cumulative gain) of lists; the labels are all held-out items of a user."""

from collections.abc import Sequence

import numpy as np

from drafting.array_types import DoubleArray


def recall(lists: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], k: int) -> DoubleArray:
    """Recall@k, `[users]`: the share of a user's labels among the first k items."""
    return np.array([len(set(found[:k]) & set(wanted)) / len(wanted) for found, wanted in zip(lists, labels, strict=True)])


def ndcg(lists: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], k: int) -> DoubleArray:
    """NDCG@k, `[users]`: the sum of 1 / log2(1 + rank) of the labels among the first k items, divided by that of the best list."""
    gains = 1.0 / np.log2(2.0 + np.arange(k))
    best = np.cumsum(gains)
    rows = []
    for found, wanted in zip(lists, labels, strict=True):
        hits = np.isin(np.asarray(found[:k], np.int64), np.asarray(wanted, np.int64))
        rows.append(float(gains[: len(hits)][hits].sum() / best[min(k, len(wanted)) - 1]))
    return np.array(rows)
