"""The target's ranking of the whole catalog: how good it is where no beam loses anything.

Invariant: the figures are of the order that scores of all items give, equal ones by index, without what a user has met where seen items are
left out. So a list's figures fall short of them by what its beam has lost.
"""

from collections.abc import Callable, Sequence

import numpy as np

from drafting.array_types import BoolArray, FloatArray
from verification.evaluation.baselines.ranking import best_items, quality_of
from verification.evaluation.report import Exhaustive, Spread
from verification.evaluation.users import HeldOut
from verification.recommender import Recommender


def rank_catalog(
    recommender: Recommender, users: HeldOut, ks: Sequence[int], advance: Callable[[int], object], *, keep_seen: bool
) -> Exhaustive:
    """Rank all items for every user, of whom `advance` is told one at a time.

    Args:
        ks: list lengths of the figures of lists.
    """
    lists: list[list[int]] = []
    ranks, gains, areas = [], [], []
    scored = recommender.score(users.states(), np.arange(len(recommender.catalog)))
    for history, labels, scores in zip(users.histories, users.labels, scored, strict=True):
        row = scores.copy()
        if not keep_seen:
            row[history] = -np.inf
        wanted = np.zeros(len(row), bool)
        wanted[labels] = True
        found = ranks_of(row, wanted)
        ranks.append(found[0])
        gains.append(float((1 / np.log2(1 + found)).sum() / (1 / np.log2(2 + np.arange(len(found)))).sum()))
        areas.append(area(row, wanted))
        lists.append(best_items(row, max(ks)))
        advance(1)
    quality = {k: quality_of(users, lists, k) for k in ks}
    return Exhaustive(quality, Spread.of(np.array(ranks)), float(np.mean(gains)), float(np.mean(areas)))


def ranks_of(scores: FloatArray, wanted: BoolArray) -> FloatArray:
    """The places of the wanted items in the ranking of all, `[wanted]`, ascending from 1; one that is left out has the last that it may
    have, so that it is not taken for found.

    Args:
        scores: `[items]`, -inf for an item that is left out.
        wanted: `[items]` bool.
    """
    order = np.argsort(-scores, kind="stable")
    places = 1.0 + np.flatnonzero(wanted[order])
    lost = int((scores[wanted] == -np.inf).sum())
    if lost:
        places[-lost:] = len(scores) - np.arange(lost)[::-1]
    return places


def area(scores: FloatArray, wanted: BoolArray) -> float:
    """The area under the ROC curve: how often a wanted item scores higher than another, ties for a half; 1 where there is no other.

    Args:
        scores, wanted: as of `ranks_of`; others that are left out do not count.
    """
    others = np.sort(scores[~wanted & (scores > -np.inf)])
    if not len(others):
        return 1.0
    below, up_to = (np.searchsorted(others, scores[wanted], side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(others)))
