"""How much a neighbour model weighs in blended lists: chosen among weights by lists of validation users.

Invariant: the test part is asked about once, with one weight. Each validation user is searched for once, whatever the number of weights:
log-probabilities and candidates do not depend on the weight, and one search finds everything that the best list of any weight is made of
(see `verification.blend`). Weights are chosen by lists of the beam that they are applied with.
"""

from collections.abc import Callable, Sequence

import numpy as np

from drafting.alignment.data.interactions import Split
from drafting.neighbours.candidates import Blending, CatalogNeighbours
from verification.evaluation.baselines.ranking import CHOSEN_AT, merit, quality_of
from verification.evaluation.searching import NO_PLAN, Beam, Mode
from verification.evaluation.settings import EvaluationSettings
from verification.evaluation.users import HeldOut, held_out
from verification.recommender import Recommender
from verification.result import BeamResult


def blended_mode(
    recommender: Recommender,
    neighbours: CatalogNeighbours,
    weights: Sequence[float],
    split: Split,
    settings: EvaluationSettings,
    beam: Beam,
    advance: Callable[[int], object],
) -> Mode:
    """The mode of blended lists, with the weight of the highest Recall@10 + NDCG@10 of validation users; a single one is taken as it is.

    Args:
        beam: that of the lists; where it finds fewer than 10, so long are the lists that choose.

    Raises:
        InteractionError: there are no validation users.
    """
    best = weights[0]
    if len(weights) > 1:
        users = held_out(split, "valid", settings.most_users)
        lists = lists_by_weight(recommender, neighbours, weights, users, settings, beam, advance)
        best = max(weights, key=lambda weight: merit(quality_of(users, lists[weight], _length(beam))))
    return Mode("", f"blend {best:g}", NO_PLAN, blend=Blending(neighbours, best))


def lists_by_weight(
    recommender: Recommender,
    neighbours: CatalogNeighbours,
    weights: Sequence[float],
    users: HeldOut,
    settings: EvaluationSettings,
    beam: Beam,
    advance: Callable[[int], object],
) -> dict[float, list[list[int]]]:
    """The blended lists of users by weight, from one search for each user."""
    lists: dict[float, list[list[int]]] = {weight: [] for weight in weights}
    everything = Mode("", "blend 1", NO_PLAN, blend=Blending(neighbours, 1.0, every=True))
    excluded = None if settings.keep_seen else users.histories
    k = _length(beam)
    for result in everything.lists(recommender, users.states(), k, beam, excluded):
        for weight, found in lists.items():
            found.append(reranked(result, weight, k))
        advance(1)
    return lists


def _length(beam: Beam) -> int:
    """The length of the lists that choose."""
    return min(CHOSEN_AT, *beam.widths[-1:], beam.width)


def reranked(result: BeamResult, weight: float, k: int) -> list[int]:
    """The items of the k best identifiers by another weight, best first.

    Args:
        result: a list of all that is ranked by weight 1.
    """
    assert result.blend is not None
    log_probs = np.array([item.score for item in result.firsts])
    ranking = log_probs + weight * (np.array(result.blend.scores) - log_probs)
    rank_of = {rank: place for place, rank in enumerate((1 + np.argsort(-ranking, kind="stable")[:k]).tolist())}
    return [item.item for item in sorted(result.items, key=lambda item: rank_of.get(item.rank, k)) if item.rank in rank_of]
