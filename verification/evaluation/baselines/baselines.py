"""The baselines of an evaluation by name: their settings chosen on the validation part, their lists made with all that is known."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tqdm import tqdm

from drafting.neighbours.build import ease_refusal
from drafting.neighbours.knn import most_kept
from drafting.neighbours.model import NeighbourError
from verification.evaluation.baselines.closed_forms import (
    DECAYS,
    STRENGTHS,
    NeighbourSettings,
    best_of,
    co_occurring,
    most_popular,
    neighbour_scores,
    try_settings,
)
from verification.evaluation.baselines.ranking import Scorer, quality_of, ranked_lists
from verification.evaluation.baselines.task import BaselineTask
from verification.evaluation.report import BaselineRow, Quality
from verification.evaluation.settings import BASELINES
from verification.evaluation.users import HeldOut

# The settings as `BaselineTask.shown` tells them, and scores: one of each seed, of neural baselines.
Made = tuple[str, Iterable[Scorer]]


@dataclass(frozen=True)
class LeftOut:
    """A baseline that cannot be made, and why, as a sentence."""

    name: str
    reason: str


@dataclass(frozen=True)
class BaselineLists:
    """The lists of a baseline.

    Attributes:
        name: as in tables.
        chosen: the settings, as a text that says whether validation chose them; empty where there are none.
        lists: of each user, best first; with several seeds, of the first.
        others: the lists of the other seeds.
    """

    name: str
    chosen: str
    lists: list[list[int]]
    others: list[list[list[int]]]

    def row(self, users: HeldOut, k: int) -> BaselineRow:
        """Its figures at one length, as means over its seeds."""
        each = [quality_of(users, lists, k) for lists in (self.lists, *self.others)]
        return BaselineRow(self.name, k, Quality.mean(each), self.chosen, each if self.others else [])


def baseline_lists(names: Sequence[str], task: BaselineTask, k: int) -> Iterator[BaselineLists | LeftOut]:
    """The lists of some baselines, of length k; one that cannot be made in the memory or time there is is left out, with a sentence.

    Args:
        names: keys of `BASELINES`.

    Raises:
        SetupError: a baseline cannot be made of these interactions.
    """
    for name in names:
        task.on_step(BASELINES[name])
        try:
            made = _made(name, task, k)
        except NeighbourError as error:
            yield LeftOut(BASELINES[name], str(error))
        except MemoryError:
            yield LeftOut(BASELINES[name], "The machine has no memory for it.")
        else:
            yield made


def baseline_rows(names: Sequence[str], task: BaselineTask, ks: Sequence[int]) -> tuple[list[BaselineRow], dict[str, str]]:
    """The rows of a report at each length, and why other baselines are left out, by name; a bar tells of the task's steps."""
    rows: list[BaselineRow] = []
    left_out = {}
    with tqdm(total=len(names), desc="baselines", unit="baseline") as bar:
        for each in baseline_lists(names, replace(task, on_step=bar.set_postfix_str), max(ks)):
            if isinstance(each, LeftOut):
                left_out[each.name] = each.reason
            else:
                rows += [each.row(task.users, k) for k in ks]
            bar.update()
    return rows, left_out


def _made(name: str, task: BaselineTask, k: int) -> BaselineLists:
    """The lists of one baseline; no two of its scores are in memory at a time."""
    chosen, scorers = _MAKERS[name](task)
    lists, *others = (ranked_lists(task.users, scores, k, keep_seen=task.keep_seen) for scores in scorers)
    return BaselineLists(BASELINES[name], chosen, lists, others)


def _most_popular(task: BaselineTask) -> Made:
    return "", [most_popular(task.users, task.items)]


def _co_occurring(task: BaselineTask) -> Made:
    kept = most_kept(task.users.known, task.items, 1)
    return _said("", kept), [co_occurring(task.users, task.items, kept)]


def _neighbours(kind: str, task: BaselineTask) -> Made:
    if kind == "ease" and (refusal := ease_refusal(task.items)):
        raise NeighbourError(f"{refusal}.")
    settings = NeighbourSettings(kind, STRENGTHS[kind][0], DECAYS[0])
    kept = _kept(task) if kind == "knn" else None
    if task.validation is not None:
        tried = []
        for each in try_settings(task.validation, task.items, kind, kept, keep_seen=task.keep_seen):
            task.tell(kind, str(each.settings))
            tried.append(each)
        settings = best_of(tried).settings
    weights = settings.weights(task.users.known, task.items, kept)
    return _said(task.shown(settings), kept), [neighbour_scores(task.users, weights, settings.decay, settings.window)]


def _kept(task: BaselineTask) -> int | None:
    """How many neighbours of each item item-kNN keeps while it is chosen and when it is made: all, or what there is memory for."""
    asked = [(task.users.known, 1)] + ([] if task.validation is None else [(task.validation.known, len(STRENGTHS["knn"]))])
    found = [most_kept(known, task.items, matrices) for known, matrices in asked]
    return min((each for each in found if each is not None), default=None)


def _said(settings: str, kept: int | None) -> str:
    """Settings as a text, and what was left out for want of memory."""
    return settings if kept is None else ", ".join(filter(None, [settings, f"{kept:,} neighbours an item for want of memory"]))


def _neural(name: str, task: BaselineTask) -> Made:
    from verification.evaluation.baselines.neural import neural_scores

    return neural_scores(name, task)


# By name, a key of `BASELINES`.
_MAKERS: dict[str, Callable[[BaselineTask], Made]] = {
    "popular": _most_popular,
    "co-occurrence": _co_occurring,
    "knn": partial(_neighbours, "knn"),
    "ease": partial(_neighbours, "ease"),
    "sasrec": partial(_neural, "sasrec"),
    "gru4rec": partial(_neural, "gru4rec"),
}
