"""Evaluation of the demo's target: Recall@10 on the film that each user watched last, beside baselines without a generative model.

All lists leave out what the user has already watched, and all know everything before the last film and nothing of it: the same rules for
all, or the comparison would say nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from tqdm import tqdm

from drafting.alignment.data.interactions import Split
from drafting.catalog.catalog import Catalog
from verification.evaluation.report import BaselineRow, Quality
from verification.evaluation.users import HeldOut, held_out

# Those that are computed at once; networks train for minutes.
BASELINES = ("popular", "knn", "ease")


class Evaluation(msgspec.Struct, frozen=True):
    """Figures at length k of the target and the baselines, on the same users.

    Attributes:
        beam_width: beam width of the target's lists.
        users: how many users.
    """

    k: int
    beam_width: int
    users: int
    target: Quality
    baselines: list[BaselineRow]

    @property
    def best(self) -> BaselineRow:
        """The baseline that finds the most."""
        return max(self.baselines, key=lambda row: row.quality.recall)

    @property
    def sentence(self) -> str:
        """The figures, and the rules that they were got by."""
        others = ", ".join(f"{row.name} {row.quality.recall:.3f}" for row in self.baselines if row is not self.best)
        return (
            f"Recall@{self.k} on the film that each of {self.users} users watched last: target {_figure(self.target)}; best baseline "
            f"{_figure(self.best.quality)} ({self.best.name}; {others}).\nThe target finds "
            f"{self.target.recall / max(self.best.quality.recall, 1e-9):.2f} times what that baseline finds. All lists leave out what a "
            "user has seen before, and nothing has learned from the last films. GRU4Rec and SASRec, which train for minutes and may find "
            "more, are not among these baselines: see docs/results/quality.md."
        )


def _figure(quality: Quality) -> str:
    return f"{quality.recall:.3f} ± {quality.recall_error:.3f}"


def evaluate(model: Path, catalog: Catalog, split: Split, k: int, beam_width: int) -> Evaluation:
    """Ask the engine for every user's list, and compare it with the baselines'."""
    # The process that serves the demo reads its figures from here, and needs nothing of what they were made with.
    from verification.evaluation.baselines.baselines import baseline_rows
    from verification.evaluation.baselines.ranking import quality_of
    from verification.evaluation.baselines.task import BaselineTask

    users = held_out(split)
    target = quality_of(users, _lists(model, catalog, users, k, beam_width), k)
    rows, _ = baseline_rows(BASELINES, BaselineTask(split, users, len(catalog)), [k])
    return Evaluation(k, beam_width, len(users), target, rows)


def _lists(model: Path, catalog: Catalog, users: HeldOut, k: int, beam_width: int) -> Sequence[Sequence[int]]:
    """The target's lists."""
    from verification.recommender import Recommender

    recommender = Recommender.load(model, catalog, host="transformers")
    try:
        lists = recommender.recommend(users.histories, k, beam_width, excluded_items=users.histories)
        return [[line.item for line in result.items] for result in tqdm(lists, total=len(users), desc="evaluating", unit="user")]
    finally:
        recommender.close()
