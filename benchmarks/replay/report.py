"""The cost of plans on machines with given cost curves, from one recording."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.replay.recording import Recording
from benchmarks.replay.simulate import Replay, Replayed
from drafting.plans.costs import ForwardCosts
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.plan import Plan
from drafting.plans.planner import AUTO, Planner

# Items that the planner may draft.
DRAFTED_ITEMS = 40


@dataclass(frozen=True)
class ReplayRow:
    """The mean cost of one plan per request.

    Attributes:
        balance: tokens that cost the target as much as a forward's fixed part (a/b).
        seconds: modelled time, in the unit of the cost curve.
        speedup: plain beam search's time through this plan's.
        target_tokens, draft_tokens: tokens of all forwards of a request.
    """

    balance: float
    k: int
    plan: str
    seconds: float
    speedup: float
    target_forwards: float
    target_tokens: float
    draft_forwards: float
    draft_tokens: float
    accepted_steps: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_plans(
    recording: Recording,
    ks: Sequence[int],
    plans: Sequence[str],
    curves: Mapping[float, ForwardCosts],
    progress: Callable[[], None] = lambda: None,
) -> list[ReplayRow]:
    """Replay every plan for every k on every cost curve.

    The planner starts anew for each k and curve, knowing nothing, so what it pays for learning is in its figures.

    Args:
        plans: names of plans; plain beam search is replayed for the comparison in any case.
        curves: cost curves by the name that their rows carry as `balance`.
        progress: called after each plan, k and curve.
    """
    fan_out = np.diff(recording.level_starts)[1:] / np.diff(recording.level_starts)[:-1]
    rows = []
    for k in ks:
        fixed = {name: _replay(recording, k, FixedPlan.parse(name)) for name in {"none", *plans} - {AUTO}}
        for balance, costs in curves.items():
            plain = modelled_seconds(fixed["none"], costs)
            for name in plans:
                done = _replay(recording, k, Planner(costs, fan_out.tolist(), items=DRAFTED_ITEMS)) if name == AUTO else fixed[name]
                rows.append(_row(balance, k, name, done, costs, plain))
                progress()
    return rows


def modelled_seconds(done: Sequence[Replayed], costs: ForwardCosts) -> float:
    """Mean time of the replayed searches under a cost curve."""
    return float(np.mean([_seconds(each, costs) for each in done]))


def _seconds(done: Replayed, costs: ForwardCosts) -> float:
    drafting = sum(map(costs.draft.seconds, done.draft)) if costs.draft else 0.0
    return sum(map(costs.target.seconds, done.target)) + drafting + costs.children * done.children + costs.level * done.accepted


def _replay(recording: Recording, k: int, plan: Plan) -> list[Replayed]:
    replay = Replay(recording)
    return [replay.search(user, k, plan) for user in range(recording.users)]


def _row(balance: float, k: int, plan: str, done: Sequence[Replayed], costs: ForwardCosts, plain: float) -> ReplayRow:
    seconds = modelled_seconds(done, costs)
    return ReplayRow(
        balance=balance,
        k=k,
        plan=plan,
        seconds=seconds,
        speedup=plain / seconds,
        target_forwards=float(np.mean([len(each.target) for each in done])),
        target_tokens=float(np.mean([sum(each.target) for each in done])),
        draft_forwards=float(np.mean([len(each.draft) for each in done])),
        draft_tokens=float(np.mean([sum(each.draft) for each in done])),
        accepted_steps=float(np.mean([each.accepted for each in done])),
    )
