"""Lists with a tolerance compared with the exact ones: what they lack, whether one is beyond its bound, and what they save on other
machines.

Invariant: every list is compared with that of plain beam search for the same user, which no draft and no plan has touched. Times are
modelled from the tokens of the engine's own forwards, so they do not depend on this machine. Each kind of list has a planner of its own,
which begins knowing nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.endings import BenchmarkError
from benchmarks.markdown import markdown_table
from benchmarks.modelled_costs import modelled_costs
from benchmarks.systems.comparison import TIE
from benchmarks.systems.histories import unlearnt_users
from drafting.beam.rule import Tolerance
from drafting.plans.costs import ForwardCosts
from drafting.plans.plan import Plan
from drafting.plans.planner import Planner
from drafting.prompts.user_state import UserState
from verification.batch import ScoresNotFinite
from verification.evaluation.baselines.ranking import quality_of
from verification.evaluation.searching import NO_PLAN
from verification.evaluation.users import HeldOut
from verification.recommender import Recommender
from verification.result import BeamResult

HEADS = (
    "tolerance",
    "speed-up over plain",
    "over exact",
    "target forwards",
    "tokens",
    "missing: mean",
    "most",
    "beyond the bound",
    "Recall",
)
# Scores are float32; so much may a share of probability differ in two computations of it.
SHARE_ERROR = 1e-5


@dataclass
class Kind:
    """One kind of lists, and what is known of those that were searched.

    Attributes:
        plan: of this kind alone.
        tolerance: None for plain lists and for exact ones.
        time: modelled, of all lists.
        lists: catalog indices of each.
        missing: of each list, identifiers of plain beam search's that it lacks.
        beyond: lists that lack more than they may.
    """

    name: str
    plan: Plan
    tolerance: Tolerance | None = None
    time: float = 0.0
    forwards: int = 0
    tokens: int = 0
    lists: list[list[int]] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    beyond: int = 0

    def judge(self, found: BeamResult, plain: BeamResult) -> None:
        """Count what a list lacks of plain beam search's; its last ones of equal scores stand for each other."""
        self.lists.append([item.item for item in found.items])
        listed, expected = {item.item for item in found.firsts}, plain.firsts
        last = min((item.score for item in expected), default=0.0)
        missing = [item.score for item in expected if item.item not in listed and item.score > last + TIE]
        share = np.exp(missing).sum() / max(np.exp([item.score for item in expected]).sum(), np.finfo(np.float64).tiny)
        bound = self.tolerance or Tolerance()
        self.missing.append(len(missing))
        self.beyond += int(len(missing) > bound.items and share > bound.mass + SHARE_ERROR)

    def row(self, users: HeldOut, k: int, plain: "Kind", exact: "Kind") -> tuple[object, ...]:
        """The row of a table."""
        quality, lists = quality_of(users, self.lists, k), len(self.lists)
        return (
            self.name,
            f"{plain.time / self.time:.2f}",
            f"{exact.time / self.time:.2f}",
            f"{self.forwards / lists:.2f}",
            f"{self.tokens / lists:.0f}",
            f"{np.mean(self.missing):.2f}",
            max(self.missing),
            f"{self.beyond} of {lists:,}",
            f"{quality.recall:.4f} ± {quality.recall_error:.4f}",
        )


def tolerance_of(text: str) -> Tolerance:
    """A tolerance as the command takes it: a number of items, or a share of the list's probability, such as 5%.

    Raises:
        BenchmarkError: it is neither.
    """
    try:
        return Tolerance(mass=float(text[:-1]) / 100) if text.endswith("%") else Tolerance(items=int(text))
    except ValueError as error:
        raise BenchmarkError(f"{text!r} is no tolerance: give a number of items, or a share below 100% of a list's probability.") from error


def run(
    target: Path,
    draft: Path,
    catalog_file: Path,
    data: Path,
    k: int,
    tolerances: Sequence[str],
    balance: int,
    most_users: int | None,
    host: str,
) -> tuple[str, int]:
    """The table of a target's lists, and how many of them were beyond their bound; the command may end as in `unlearnt_users`.

    Args:
        tolerances: as in `tolerance_of`.
        balance: fixed part of a forward on the modelled machine, in tokens; a forward of the draft costs 1% of the target's.

    Raises:
        BenchmarkError, SetupError: there is no such tolerance, or models, catalog and data can't be used together.
    """
    wanted = {text: tolerance_of(text) for text in tolerances}
    catalog, users = unlearnt_users(target, catalog_file, data, most_users)
    costs = modelled_costs(balance)
    with closing(Recommender.load(target, catalog, draft=draft, host=host, dtype="float32")) as recommender:
        fan_out = recommender.engine.trie.mean_fan_out
        plain, exact = Kind("plain beam search", NO_PLAN), Kind("none", Planner(costs, fan_out))
        kinds = [plain, exact, *(Kind(text, Planner(costs, fan_out), tolerance) for text, tolerance in wanted.items())]
        for number, (state, met) in enumerate(zip(_progress(users), users.histories, strict=True)):
            results = [_asked_again(recommender, kind, costs, number, state, k, met) for kind in kinds]
            for kind, result in zip(kinds, results, strict=True):
                kind.judge(result, results[0])
    rows = [kind.row(users, k, plain, exact) for kind in kinds]
    return markdown_table(HEADS, rows), sum(kind.beyond for kind in kinds)


def _progress(users: HeldOut) -> Iterator[UserState]:
    return iter(tqdm(users.states(), total=len(users), desc="Searching", unit="user", disable=None))


def _asked_again(
    recommender: Recommender, kind: Kind, costs: ForwardCosts, number: int, state: UserState, k: int, met: Sequence[int]
) -> BeamResult:
    """The list of a user who was asked for before their newest event, as most users are; what that list took is not counted."""
    engine, key = recommender.engine, f"{kind.name}/{number}"
    engine.use_plan(kind.plan)
    for name, events in (("before", state.events[:-1]), ("now", state.events)):
        if not events:
            continue
        asked = replace(state, events=events)
        request = recommender.request(f"{key}/{name}", asked, k, None, met, cache_key=key, tolerance=kind.tolerance)
        engine.add(request)
        reports = []
        while engine.running:
            reports.append(engine.step())
        if any(report.failed for report in reports):
            raise ScoresNotFinite
        (result,) = (found for report in reports for found in report.finished)
    kind.time += sum(costs.target.seconds(report.tokens) for report in reports)
    assert costs.draft is not None
    kind.time += sum(costs.draft.fixed * report.draft_forwards + costs.draft.per_token * report.draft_tokens for report in reports)
    kind.forwards += result.usage.target_forwards
    kind.tokens += sum(report.tokens for report in reports)
    return result
