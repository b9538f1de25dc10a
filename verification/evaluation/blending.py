"""How much a neighbour model weighs in blended lists: chosen among weights by lists of validation users.

Invariant: the test part is asked about once, with one weight.
"""

from collections.abc import Callable, Sequence

from drafting.alignment.data.interactions import Split
from drafting.neighbours.candidates import Blending, CatalogNeighbours
from verification.evaluation.baselines.ranking import CHOSEN_AT, merit, quality_of
from verification.evaluation.searching import NO_PLAN, Mode, search_all
from verification.evaluation.settings import EvaluationSettings
from verification.evaluation.users import held_out
from verification.recommender import Recommender


def blended_mode(
    recommender: Recommender,
    neighbours: CatalogNeighbours,
    weights: Sequence[float],
    split: Split,
    settings: EvaluationSettings,
    advance: Callable[[int], None],
) -> Mode:
    """The mode of blended lists, with the weight of the highest Recall@10 + NDCG@10 of validation users; a single one is taken as it is.

    Raises:
        InteractionError: there are no validation users.
    """
    modes = [Mode("", f"blend {weight:g}", NO_PLAN, blend=Blending(neighbours, weight)) for weight in weights]
    if len(modes) == 1:
        return modes[0]
    users = held_out(split, "valid", settings.most_users)
    excluded = None if settings.keep_seen else users.histories
    width = max(CHOSEN_AT, settings.beam_width)
    found = {
        mode: quality_of(users, search_all(recommender, mode, users.states(), CHOSEN_AT, width, advance, excluded).lists, CHOSEN_AT)
        for mode in modes
    }
    return max(modes, key=lambda mode: merit(found[mode]))
