"""Parts that time scripted searches of served sizes, with random weights and recorded acceptance."""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace

from benchmarks.gpu.day.results import AGAIN, Figures, Measured
from benchmarks.gpu.day.scale import Scale, ScriptedShape
from benchmarks.gpu.run import PLAIN, TRIE, runs_of
from benchmarks.gpu.scripted_run import Case, ScriptedEngine
from benchmarks.gpu.timing import Timing, failure
from benchmarks.systems.trace import TraceRun, plain_run, trie_run
from drafting.beam.rule import SearchRule, Verification
from drafting.errors import SetupError
from drafting.plans.costs import ForwardCosts
from verification.hosts.checkpoint import HostError

logger = logging.getLogger(__name__)

# The case of graphs that could not be recorded.
REFUSED = "graphs"
RELAXED = SearchRule(Verification.RELAXED, seed=0)


def time_wide(scale: Scale, done: Collection[str]) -> Iterator[Measured]:
    """NVIDIA's shape."""
    return _time(scale, scale.wide, done)


def time_long(scale: Scale, done: Collection[str]) -> Iterator[Measured]:
    """FlashRec's shape."""
    return _time(scale, scale.long, done)


def time_paper(scale: Scale, done: Collection[str]) -> Iterator[Measured]:
    """The paper's shape, strict with the planner and relaxed.

    Random weights have no acceptance of their own, and random beams follow no recorded one. So relaxed verification is timed with the plan
    whose drafts hold for any beam, all children.
    """
    return _time(scale, scale.paper, done, relaxed=True)


def time_graphs(scale: Scale, done: Collection[str]) -> Iterator[Measured]:
    """The same cases with and without CUDA graphs, in this order, for the figures with graphs are the ones wanted.

    Raises:
        SetupError: they were refused, and what a failed recording has left on the device may change figures: a new process goes on without.
    """
    if REFUSED not in done:
        try:
            yield from _time(scale, scale.graphs, done, suffix=", graphs", graphs=True)
        except HostError as error:
            yield Measured(REFUSED, [{"refused": str(error)}])
            raise SetupError(AGAIN) from error
    yield from _time(scale, scale.graphs, done)


def _time(
    scale: Scale, shape: ScriptedShape, done: Collection[str], relaxed: bool = False, suffix: str = "", graphs: bool = False
) -> Iterator[Measured]:
    """The cases that are not done; the engine is made for those alone.

    Raises:
        SetupError: the last case has cost this process the device: a new one goes on behind it.
    """
    cases = [case for case in shape.cases if f"{case}{suffix}" not in done]
    if not cases:
        return
    engine = ScriptedEngine(shape.name + suffix, shape.shape, cases, scale.device, graphs)
    try:
        costs = engine.costs(max(case.prompt for case in cases))
        for case in cases:
            name = f"{case}{suffix}"
            try:
                rows = _rows(scale, shape, engine, case, costs, relaxed)
            except RuntimeError as error:
                # What costs no more than a plan is among the rows.
                logger.exception("%s failed.", name)
                yield Measured(name, [{"failed": f"{name}: {failure(error)}"}])
                raise SetupError(AGAIN) from error
            yield Measured(name, rows)
    finally:
        engine.close()


def _rows(scale: Scale, shape: ScriptedShape, engine: ScriptedEngine, case: Case, costs: ForwardCosts, relaxed: bool) -> list[Figures]:
    # What the forwards before it have counted is not the case's.
    engine.graph_counts()
    timings, lost = engine.time(case, _strict_runs(shape, case, engine, costs), scale.searches, turns=scale.turns)
    if relaxed:
        runs = [plain_run(case.k, engine.trie), trie_run(case.k, engine.trie)]
        sampled, more = engine.time(case, runs, scale.searches, RELAXED, scale.turns)
        timings, lost = [*timings, *map(_named_relaxed, sampled)], [*lost, *more]
    sentences: list[Figures] = [*({"left out": sentence} for sentence in lost), *({"layers": note} for note in engine.notes)]
    return [*map(asdict, timings), *sentences, *_replayed(engine, case)]


def _replayed(engine: ScriptedEngine, case: Case) -> Iterator[Figures]:
    """How many of a case's forwards were replayed from graphs; nothing without graphs, and a case that fits none is timed as without."""
    for model, counts in zip(("target", "draft"), engine.graph_counts(), strict=False):
        yield {"graphs": f"{case}: {counts.replayed} of {counts.replayed + counts.skipped} forwards of the {model} were replayed."}


def _strict_runs(shape: ScriptedShape, case: Case, engine: ScriptedEngine, costs: ForwardCosts) -> Sequence[TraceRun]:
    """Plain beam search, all children, and the planner of the machine most like this one if one was recorded."""
    return runs_of(shape.trace, case, engine.trie, [PLAIN, TRIE, "auto"], costs)


def _named_relaxed(timing: Timing) -> Timing:
    return replace(timing, plan=f"relaxed {timing.plan}")
