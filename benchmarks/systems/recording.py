"""Recording acceptance traces: real searches, one at a time, with a plan that takes notes.

Invariant: the plan that is recorded decides as it would without the notes, and what it learns it learns from the same outcomes.
"""

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.modelled_costs import modelled_costs
from benchmarks.systems.trace import ALL, Trace, TraceRound, TraceRun, balance_of
from drafting.array_types import BoolArray, FloatArray
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.plan import Action, DraftRound, LevelOutcome, Plan
from drafting.plans.planner import Planner
from drafting.plans.running_costs import StepTimes
from verification.recommender import Recommender
from verification.result import Usage

# A draft of a hundredth of the target's size: it runs few layers, but all else that a forward costs is the same.
DRAFT_SHARE = 0.05


class RecordingPlan(Plan):
    """A plan that remembers what it said about one round, and how much of the target's choice it had at each depth."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.name = plan.name
        self.draft: list[int | str] = []
        self._kept: dict[int, int] = {}
        self.missing: dict[int, int] = {}

    @property
    def drafts(self) -> bool:
        return self._plan.drafts

    @property
    def needs_draft(self) -> bool:
        return self._plan.needs_draft

    def most_proposals(self, width: int) -> int:
        return self._plan.most_proposals(width)

    @property
    def learns(self) -> bool:
        """Always: outcomes are what is recorded."""
        return True

    def start_round(self) -> None:
        """Forget the last round."""
        self.draft, self._kept, self.missing = [], {}, {}

    def refusal(self, width: int) -> str | None:
        return self._plan.refusal(width)

    def drafts_for(self, key: str | None) -> bool:
        return self._plan.drafts_for(key)

    def action(self, state: DraftRound, has_draft: bool) -> Action:
        action = self._plan.action(state, has_draft)
        if action is Action.CHILDREN:
            self.draft.append(ALL)
        return action

    def gives_up(self, state: DraftRound) -> bool:
        return self._plan.gives_up(state)

    def bonus(self, state: DraftRound) -> float:
        return self._plan.bonus(state)

    def width(self, state: DraftRound, scores: FloatArray | None, new: BoolArray | None) -> int:
        width = self._plan.width(state, scores, new)
        if scores is not None:
            width = min(width, int(np.count_nonzero(np.isfinite(scores))))
        self.draft.append(width)
        self._kept[state.next_depth] = width
        return width

    def learn(self, outcomes: Sequence[LevelOutcome]) -> None:
        for outcome in outcomes:
            kept = self._kept.get(outcome.depth, 0)
            self.missing[outcome.depth] = int(np.count_nonzero((outcome.ranks < 0) | (outcome.ranks >= kept)))
        if self._plan.learns:
            self._plan.learn(outcomes)

    def learn_children(self, state: DraftRound, parents: int, children: int) -> None:
        self._plan.learn_children(state, parents, children)

    def learn_times(self, times: StepTimes) -> None:
        self._plan.learn_times(times)


def record(
    recommender: Recommender,
    histories: Sequence[list[int]],
    plans: Sequence[str],
    ks: Sequence[int],
    progress: Callable[[int], object],
    *,
    source: str = "",
    warm_up: int = 0,
    draft_share: float = DRAFT_SHARE,
) -> Trace:
    """Search every history with every plan at every k.

    Args:
        plans: fixed plans; `auto` as the recommender was loaded with it; `auto@B`, the planner of a machine where the fixed part of a
            forward costs as much as B tokens.
        progress: told after each search.
        source: what is searched, in words, for the reader of the trace.
        warm_up: how many histories come first without being recorded, for a planner to learn from.
        draft_share: on the machine of `auto@B`, what a forward of the draft costs beside one of the target.
    """
    runs = []
    for name in plans:
        plan = _make_plan(name, recommender, draft_share)
        for k in ks:
            scripts = []
            for history in histories:
                scripts.append(_record_one(recommender, RecordingPlan(plan), history, k))
                progress(1)
            runs.append(TraceRun(name, k, plan.most_proposals(k), tuple(scripts[warm_up:])))
    return Trace(source, recommender.catalog.identifier_length, tuple(runs))


def _make_plan(name: str, recommender: Recommender, draft_share: float) -> Plan:
    made = recommender.engine.plan
    if name == made.name:
        return made
    if (balance := balance_of(name)) is None:
        return FixedPlan.parse(name)
    return Planner(modelled_costs(balance, draft_share), recommender.engine.trie.mean_fan_out)


def _record_one(recommender: Recommender, plan: RecordingPlan, history: list[int], k: int) -> tuple[TraceRound, ...]:
    """One search's rounds."""
    engine = recommender.engine
    engine.use_plan(plan)
    request = recommender.request("", history, k, k)
    engine.add(request)
    drafts: list[tuple[int | str, ...]] = []
    missing: dict[int, int] = {}
    nodes: list[int] = []
    while True:
        plan.start_round()
        report = engine.step()
        drafts.append(tuple(plan.draft))
        missing |= plan.missing
        nodes.append(report.tokens)
        if report.finished:
            break
    usage = report.finished[0].usage
    nodes[0] -= usage.prompt_tokens - usage.cached_tokens - 1
    return tuple(
        TraceRound(draft, accepted, max(1, missing.get(depth, k)) if depth else 0, count)
        for draft, count, (accepted, depth) in zip(drafts, nodes, _rounds(usage, recommender.catalog.identifier_length), strict=True)
    )


def _rounds(usage: Usage, identifier_length: int) -> list[tuple[int, int]]:
    """Accepted levels of each round, and the depth of the level that ended it; depth 0 where the round came to the list."""
    rounds, accepted = [], 0
    for depth in range(1, identifier_length):
        if depth in usage.accepted_depths:
            accepted += 1
        else:
            rounds.append((accepted, depth))
            accepted = 0
    return [*rounds, (accepted, 0)]
