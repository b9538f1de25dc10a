"""The model against the clock: predicted and measured time of the same lists on this machine."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.replay.recording import Recording, record_recommender
from benchmarks.replay.report import modelled_seconds
from benchmarks.replay.simulate import Replay
from benchmarks.systems.closed_loop import closed_loop
from drafting.array_types import DoubleArray
from drafting.plans.costs import ForwardCosts
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.plan import Plan
from drafting.plans.planner import AUTO, Planner
from verification.engine.calibration import measure_costs
from verification.recommender import Recommender

# The error of the error is a twentieth then.
REDRAWN = 200


@dataclass(frozen=True)
class CheckRow:
    """Median seconds of a list under one plan, by the clock and by the model, and how much faster than plain search both say it is.

    `speedup_error` is the standard error of `measured_speedup`: how far it may be off because the machine's speed changes between turns.
    """

    k: int
    plan: str
    measured: float
    predicted: float
    measured_speedup: float
    speedup_error: float
    predicted_speedup: float


def check_plans(
    recommender: Recommender,
    histories: Sequence[list[int]],
    ks: Sequence[int],
    plans: Sequence[str],
    concurrency: int = 1,
    progress: Callable[[int], object] = lambda _: None,
) -> list[CheckRow]:
    """Time every plan on every history, and predict the same from a recording and the measured cost curve.

    Plans take turns, block by block, in one process and without a rest, which resolves smaller differences than any comparison across
    processes. A first round over the histories is not counted: the planner learns in it.

    Args:
        concurrency: requests at once; a prediction is made for one at a time only, and is not a number otherwise.
        progress: told how many lists were made.
    """
    engine = recommender.engine
    costs = measure_costs(engine, recommender.prompts.max_tokens)
    fan_out = engine.trie.mean_fan_out
    # Requests that are timed are of no user who was asked before: what is predicted has no last lists, either.
    recording = record_recommender(recommender, histories, ks, asked_before=False) if concurrency == 1 else None
    names, rows = list(dict.fromkeys(("none", *plans))), []
    for k in ks:
        live = {name: _plan(name, costs, fan_out, follows_clock=True) for name in names}
        blocks = _measure(recommender, histories, k, live, concurrency, progress)
        predicted = dict.fromkeys(names, float("nan"))
        if recording is not None:
            predicted = {name: _predict(recording, k, _plan(name, costs, fan_out, follows_clock=False), costs) for name in names}
        for name in plans:
            speedup, error = _speedup(blocks["none"], blocks[name])
            seconds = float(np.median(np.concatenate(blocks[name])))
            rows.append(CheckRow(k, name, seconds, predicted[name], speedup, error, predicted["none"] / predicted[name]))
    return rows


def _speedup(plain: Sequence[DoubleArray], other: Sequence[DoubleArray]) -> tuple[float, float]:
    """The ratio of two median times, and its standard error: the deviation of that ratio over blocks drawn again, the same for both.

    Blocks and not lists are drawn, because the machine's pace is that of a block. One block says nothing of the error, which is no number
    then.
    """
    drawn = np.random.default_rng(0).integers(len(plain), size=(REDRAWN, len(plain)))
    ratios = [
        np.median(np.concatenate([plain[block] for block in blocks])) / np.median(np.concatenate([other[block] for block in blocks]))
        for blocks in (np.arange(len(plain)), *drawn)
    ]
    return float(ratios[0]), float(np.std(ratios[1:])) if len(plain) > 1 else float("nan")


def _measure(
    recommender: Recommender,
    histories: Sequence[list[int]],
    k: int,
    plans: Mapping[str, Plan],
    concurrency: int,
    progress: Callable[[int], object],
) -> dict[str, list[DoubleArray]]:
    """Seconds of each list under each plan, block by block."""
    seconds: dict[str, list[DoubleArray]] = {name: [] for name in plans}
    names, size = list(plans), 1 if concurrency == 1 else 2 * concurrency
    rng = np.random.default_rng(0)
    for counted in (False, True):
        for start in range(0, len(histories), size):
            block = histories[start : start + size]
            # In random order: what a plan leaves in the processor's caches is felt by the one behind it.
            for name in rng.permutation(names).tolist():
                recommender.engine.use_plan(plans[name])
                fillers = itertools.cycle(block) if concurrency > 1 else ()
                requests = (
                    recommender.request(str(number), history, k, k) for number, history in enumerate(itertools.chain(block, fillers))
                )
                answers = closed_loop(recommender.engine, requests, len(block), concurrency)
                if counted:
                    seconds[name].append(np.array([answer.seconds for answer in answers]))
                progress(len(block))
    return seconds


def _predict(recording: Recording, k: int, plan: Plan, costs: ForwardCosts) -> float:
    """The median time of a list, of the second round over the users."""
    replay = Replay(recording)
    both = [replay.search(user, k, plan) for _ in range(2) for user in range(recording.users)]
    return float(np.median([modelled_seconds([each], costs) for each in both[recording.users :]]))


def _plan(name: str, costs: ForwardCosts, fan_out: Sequence[float], follows_clock: bool) -> Plan:
    return Planner(costs, fan_out, follows_clock) if name == AUTO else FixedPlan.parse(name)
