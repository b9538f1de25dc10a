"""From scores of all items to lists, and from lists to figures.

Invariant: every item of the catalog is a candidate, but those of the user's history where seen items are left out; equal scores stand in
the order of the catalog. The same rules hold for every baseline and for the target.
"""

from collections.abc import Callable, Sequence

import numpy as np

from drafting.array_types import DoubleArray, FloatArray
from verification.evaluation.metrics import ndcg, recall
from verification.evaluation.report import Quality
from verification.evaluation.users import HeldOut

# Makes the scores of all items, `[users, items]`, for users given as a range of rows.
Scorer = Callable[[range], FloatArray]
CHOSEN_AT = 10
USERS_AT_A_TIME = 256


def ranked_lists(users: HeldOut, scores: Scorer, k: int, *, keep_seen: bool = False) -> list[list[int]]:
    """The k best items of each user, best first; fewer where fewer are left."""
    lists = []
    for start in range(0, len(users), USERS_AT_A_TIME):
        rows = range(start, min(start + USERS_AT_A_TIME, len(users)))
        for user, row in zip(rows, scores(rows), strict=True):
            if not keep_seen:
                row[users.histories[user]] = -np.inf
            lists.append(best_items(row, k))
    return lists


def best_items(scores: FloatArray, k: int) -> list[int]:
    """The k items with the highest scores, `[items]`, equal ones by index, without those at minus infinity."""
    least = np.partition(scores, -k)[-k] if k < len(scores) else -np.inf
    candidates = np.flatnonzero((scores >= least) & (scores > -np.inf))
    best: list[int] = candidates[np.argsort(-scores[candidates], kind="stable")[:k]].tolist()
    return best


def quality_of(users: HeldOut, lists: Sequence[Sequence[int]], k: int) -> Quality:
    """The figures of lists at length k, with their standard errors over users."""
    recalls, ndcgs = recall(lists, users.labels, k), ndcg(lists, users.labels, k)
    warm = float(recalls[users.warm].mean()) if users.warm.any() else 0.0
    return Quality(float(recalls.mean()), float(ndcgs.mean()), warm, standard_error(recalls), standard_error(ndcgs))


def standard_error(values: DoubleArray) -> float:
    """The standard error of a mean over users; 0 for a single one."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def merit(quality: Quality) -> float:
    """The value that settings are chosen by: Recall + NDCG of validation users at one length."""
    return quality.recall + quality.ndcg
