"""The model against the clock: predicted and measured time of the same lists on this machine."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from drafting.plan import FixedPlan, Plan
from drafting.planner import AUTO, Planner
from verification.calibration import measure_costs
from verification.recommender import Recommender
from verification.replay.recording import record_recommender
from verification.replay.report import modelled_seconds
from verification.replay.simulate import Replay

WARM_UP = 3


@dataclass(frozen=True)
class CheckRow:
    """Mean seconds of a list under one plan, by the clock and by the model, and how much faster than plain search both say it is."""

    k: int
    plan: str
    measured: float
    predicted: float
    measured_speedup: float
    predicted_speedup: float


def check_plans(
    recommender: Recommender,
    histories: Sequence[list[int]],
    ks: Sequence[int],
    plans: Sequence[str],
    progress: Callable[[], None] = lambda: None,
) -> list[CheckRow]:
    """Times every plan on every history, plans in turn for each, and predicts the same from a recording and the measured cost curve."""
    engine = recommender.engine
    recording = record_recommender(recommender, histories, ks)
    costs = measure_costs(engine, recommender.prompts.max_tokens)
    fan_out = engine.trie.mean_fan_out

    def plan_of(name: str, follows_clock: bool) -> Plan:
        return Planner(costs, fan_out, follows_clock) if name == AUTO else FixedPlan.parse(name)

    names, rows = list(dict.fromkeys(("none", *plans))), []
    for k in ks:
        live = {name: plan_of(name, follows_clock=True) for name in names}
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for user, history in enumerate(histories):
            shift = user % len(names)
            for name in [*names[shift:], *names[:shift]]:
                engine.use_plan(live[name])
                started = time.perf_counter()
                list(recommender.recommend([history], k))
                if user >= WARM_UP:
                    seconds[name].append(time.perf_counter() - started)
                progress()
        measured = {name: float(np.mean(taken)) for name, taken in seconds.items()}
        predicted = {}
        for name in names:
            replay, plan = Replay(recording), plan_of(name, follows_clock=False)
            predicted[name] = modelled_seconds([replay.search(user, k, plan) for user in range(len(histories))][WARM_UP:], costs)
        rows += [
            CheckRow(k, name, measured[name], predicted[name], measured["none"] / measured[name], predicted["none"] / predicted[name])
            for name in plans
        ]
    return rows
