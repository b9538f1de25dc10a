"""Validation of a model in training: its lists for validation users, as they would be served."""

from contextlib import closing
from pathlib import Path

from drafting.alignment.data.interactions import Split
from drafting.alignment.settings import ListQuality
from drafting.beam.rule import SERVED_BEAM_WIDTH
from drafting.catalog.catalog import Catalog
from verification.evaluation.baselines.ranking import quality_of
from verification.evaluation.report import Quality
from verification.evaluation.users import HeldOut, held_out
from verification.recommender import Recommender

K = 10


class ListValidation:
    """Judges model directories by Recall@10 and NDCG@10 on the validation part, at the beam width that is served.

    Lists leave out what the users have met, unless it is to be kept.
    """

    def __init__(self, catalog: Catalog, users: int, *, keep_seen: bool = False) -> None:
        """`users`: the most to ask, spread evenly."""
        self._catalog = catalog
        self._users = users
        self._keep_seen = keep_seen

    def __call__(self, model: Path, split: Split) -> ListQuality:
        """Judge the model for the users that the split holds out for validation, given the training part.

        Raises:
            InteractionError: there are no such users.
            HostError: the model can't be served.
        """
        users = held_out(split, "valid", self._users)
        quality = served_quality(model, self._catalog, users, keep_seen=self._keep_seen)
        return ListQuality(K, len(users), quality.recall, quality.ndcg)


def served_quality(model: Path, catalog: Catalog, users: HeldOut, *, keep_seen: bool) -> Quality:
    """The figures at length `K` of a model directory's lists, searched as they are served, with what the users have met or without it.

    Raises:
        HostError: the model can't be served.
    """
    with closing(Recommender.load(model, catalog, host="transformers", verify="never")) as recommender:
        excluded = None if keep_seen else users.histories
        found = recommender.recommend(users.states(), K, SERVED_BEAM_WIDTH, excluded_items=excluded)
        return quality_of(users, [[item.item for item in result.items] for result in found], K)
