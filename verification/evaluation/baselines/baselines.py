"""The baselines of an evaluation by name: their settings chosen on the validation part, their lists made with all that is known."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from drafting.alignment.data.interactions import Split
from drafting.errors import InteractionError
from drafting.neighbours.build import ease_refusal
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
from verification.evaluation.report import BaselineRow, Quality
from verification.evaluation.settings import BASELINES
from verification.evaluation.users import HeldOut, held_out

Step = Callable[[str], None]


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
        chosen: the settings that validation chose, as a text; empty where there are none.
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


def baseline_lists(
    names: Sequence[str],
    split: Split,
    users: HeldOut,
    items: int,
    k: int,
    *,
    keep_seen: bool = False,
    networks: int = 1,
    folder: Path | None = None,
    on_step: Step = lambda _: None,
) -> Iterator[BaselineLists | LeftOut]:
    """The lists of some baselines, of length k; one that cannot be made in the memory or time there is is left out, with a sentence.

    Args:
        names: keys of `BASELINES`.
        users: of a part of `split`; what they know is what baselines learn from.
        keep_seen: keep what users have met, in these lists and in those that settings are chosen by.
        networks: seeds of each neural baseline.
        folder: where these are kept while they learn; what is interrupted goes on there.
        on_step: called with what is being done, as a text.

    Raises:
        SetupError: a baseline cannot be made of these interactions.
    """
    make: dict[str, Callable[[], tuple[str, Iterable[Scorer]]]] = {
        "popular": lambda: ("", [most_popular(users, items)]),
        "co-occurrence": lambda: ("", [co_occurring(users, items)]),
        "knn": partial(_neighbours, "knn", split, users, items, keep_seen, on_step),
        "ease": partial(_neighbours, "ease", split, users, items, keep_seen, on_step),
    }
    for name in ("sasrec", "gru4rec"):
        make[name] = partial(_neural, name, split, users, items, keep_seen, networks, folder, on_step)
    for name in names:
        on_step(BASELINES[name])
        try:
            made = _made(BASELINES[name], make[name], users, k, keep_seen)
        except NeighbourError as error:
            yield LeftOut(BASELINES[name], str(error))
        except MemoryError:
            yield LeftOut(BASELINES[name], "The machine has no memory for it.")
        else:
            yield made


def baseline_rows(
    names: Sequence[str],
    split: Split,
    users: HeldOut,
    items: int,
    ks: Sequence[int],
    *,
    keep_seen: bool = False,
    networks: int = 1,
    folder: Path | None = None,
) -> tuple[list[BaselineRow], dict[str, str]]:
    """The rows of a report at each length, and why other baselines are left out, by name; see `baseline_lists`."""
    rows: list[BaselineRow] = []
    left_out = {}
    with tqdm(total=len(names), desc="baselines", unit="baseline") as bar:
        asked = names, split, users, items, max(ks)
        for each in baseline_lists(*asked, keep_seen=keep_seen, networks=networks, folder=folder, on_step=bar.set_postfix_str):
            if isinstance(each, LeftOut):
                left_out[each.name] = each.reason
            else:
                rows += [each.row(users, k) for k in ks]
            bar.update()
    return rows, left_out


def _made(name: str, make: Callable[[], tuple[str, Iterable[Scorer]]], users: HeldOut, k: int, keep_seen: bool) -> BaselineLists:
    """The lists of one baseline; no two of its scores are in memory at a time."""
    chosen, scorers = make()
    lists, *others = (ranked_lists(users, scores, k, keep_seen=keep_seen) for scores in scorers)
    return BaselineLists(name, chosen, lists, others)


def _neighbours(kind: str, split: Split, users: HeldOut, items: int, keep_seen: bool, on_step: Step) -> tuple[str, Iterable[Scorer]]:
    if kind == "ease" and (refusal := ease_refusal(items)):
        raise NeighbourError(f"{refusal}.")
    validation = validation_users(split)
    settings = NeighbourSettings(kind, STRENGTHS[kind][0], DECAYS[0])
    if validation is not None:
        tried = []
        for each in try_settings(validation, items, kind, keep_seen=keep_seen):
            on_step(f"{BASELINES[kind]}, {each.settings}")
            tried.append(each)
        settings = best_of(tried).settings
    weights = settings.weights(users.known, items)
    return str(settings), [neighbour_scores(users, weights, settings.decay, settings.window)]


def _neural(
    name: str, split: Split, users: HeldOut, items: int, keep_seen: bool, networks: int, folder: Path | None, on_step: Step
) -> tuple[str, Iterable[Scorer]]:
    from verification.evaluation.baselines.neural import neural_scores

    asked = name, validation_users(split), users, items, lambda said: on_step(f"{BASELINES[name]}, {said}")
    return neural_scores(*asked, networks, folder, keep_seen=keep_seen)


def validation_users(split: Split) -> HeldOut | None:
    """The users of the validation part; None where it has none that a baseline could be chosen by."""
    try:
        return held_out(split, "valid")
    except InteractionError:
        return None
