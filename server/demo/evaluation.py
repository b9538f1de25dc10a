"""Evaluation of the demo's target: Recall@10 on the film that each user watched last, compared with the most popular films.

Both lists leave out what the user has already watched, and both know everything before the last film and nothing of it: the same rules
for either, or the comparison would say nothing.
"""

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from drafting.alignment.data.interactions import Interactions, Split
from drafting.catalog.catalog import Catalog
from verification.evaluation.metrics import recall


class Evaluation(msgspec.Struct, frozen=True):
    """Recall@k: the part of the users whose held-out film is among the k recommended."""

    k: int
    beam_width: int
    users: int
    target: float
    popular: float

    @property
    def sentence(self) -> str:
        """The figures, and the rules that they were got by."""
        return (
            f"Recall@{self.k} on the film that each of {self.users} users watched last: target {self.target:.3f}, most popular films "
            f"{self.popular:.3f}.\nThe target finds {self.target / max(self.popular, 1e-9):.1f} times as many. Both lists leave out what a "
            "user has seen before, and the training has not seen the last films."
        )


def evaluate(model: Path, catalog: Catalog, split: Split, k: int, beam_width: int) -> Evaluation:
    """Ask the engine for every user's list and compares it with the most popular films."""
    from verification.recommender import Recommender

    before = split.train.followed_by(split.valid)
    users = np.flatnonzero(split.test.lengths > 0)
    histories = [before.history(user).tolist() for user in users]
    answers = split.test.items[split.test.offsets[users]]
    recommender = Recommender.load(model, catalog, host="transformers")
    try:
        lists = recommender.recommend(histories, k, beam_width, excluded_items=histories)
        found = [[line.item for line in result.items] for result in tqdm(lists, total=len(users), desc="evaluating", unit="user")]
    finally:
        recommender.close()
    target = float(recall(found, answers[:, None].tolist(), k).mean())
    return Evaluation(k, beam_width, len(users), target, popular_recall(before, users, answers, len(catalog), k))


def popular_recall(before: Interactions, users: npt.NDArray[np.intp], answers: npt.NDArray[np.int32], items: int, k: int) -> float:
    """Recall@k of the list that is the same for everyone, but for the films that each has watched."""
    popularity = np.bincount(before.items, minlength=items)
    ranking = np.argsort(-popularity, kind="stable")
    unseen = [ranking[~np.isin(ranking, before.history(user))][:k].tolist() for user in users.tolist()]
    return float(recall(unseen, answers[:, None].tolist(), k).mean())
