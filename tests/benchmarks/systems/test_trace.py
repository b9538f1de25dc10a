"""Traces: what is recorded is what happened, and what is replayed is what was recorded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu.scripted_models import FlatTarget, OverlookingDraft
from benchmarks.gpu.scripted_run import Case, ScriptedEngine
from benchmarks.systems.recording import RecordingPlan, record
from benchmarks.systems.shapes import SHAPES
from benchmarks.systems.trace import ALL, Trace, TraceError, TraceRound, TraceRun, plain_run, trie_run
from drafting.beam.model import TreeBatch
from drafting.plans.plan import DraftRound, Plan
from tests.models import random_catalog, save_random_model
from verification.recommender import Recommender

PLANS = ("none", "trie", "beam:12", "beam:12+children")


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """A target and a draft that agree by chance only, so that some drafts hold and most do not."""
    catalog = random_catalog(items=300, depth=4)
    target = save_random_model(tmp_path_factory.mktemp("target"), catalog, hidden=32, layers=1)
    draft = save_random_model(tmp_path_factory.mktemp("draft"), catalog, hidden=32, layers=1, seed=1)
    return Recommender.load(Path(target), catalog, draft=Path(draft), kv_memory_gib=0.02)


@pytest.fixture(scope="module")
def trace(recommender: Recommender) -> Trace:
    histories = [[number, 2 * number, 5] for number in range(8)]
    return record(recommender, histories, PLANS, [1, 4], progress=lambda done: None)


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    cases = [Case(24, 4, 4)]
    return ScriptedEngine("tiny", SHAPES["tiny"], cases, torch.device("cpu"))


def test_a_recording_adds_up_to_what_the_searches_cost(recommender: Recommender, trace: Trace):
    assert trace.depth == 4
    for run in trace.runs:
        assert len(run.requests) == 8
        for script in run.requests:
            # Every scored level was reached by a forward of its own or accepted.
            assert len(script) + sum(step.accepted for step in script) == trace.depth
            assert script[-1].missing == 0
            assert all(step.missing >= 1 for step in script[:-1])
    assert any(len(script) < 4 for script in trace.find("beam:12", 1).requests)
    assert {step.draft for script in trace.find("trie", 4).requests for step in script} == {(ALL,)}
    plain = trace.find("none", 4)
    assert plain.requests == plain_run(4, recommender.engine.trie).requests * 8


def test_recording_leaves_lists_and_costs_alone(recommender: Recommender, trace: Trace):
    from drafting.plans.fixed_plan import FixedPlan

    recommender.engine.use_plan(FixedPlan.parse("beam:12"))
    results = recommender.recommend([[number, 2 * number, 5] for number in range(8)], 4, 4)
    forwards = [result.usage.target_forwards for result in results]
    assert forwards == [len(script) for script in trace.find("beam:12", 4).requests]


def test_what_a_plan_leaves_out_is_recorded_so():
    """A planner under which nothing has paid for long does not look at most searches."""

    class Lazy(Plan):
        name = "lazy"

        def drafts_for(self, key: str | None) -> bool:
            return key is not None

        def gives_up(self, state: DraftRound) -> bool:
            return state.depth > 0

    plan = RecordingPlan(Lazy())
    assert [plan.drafts_for(key) for key in (None, "anna")] == [False, True]
    assert [plan.gives_up(DraftRound((4, 4, 4), depth, 4, 1)) for depth in (0, 1)] == [False, True]


def test_a_trace_survives_its_file(trace: Trace, tmp_path: Path):
    path = tmp_path / "trace.json"
    trace.save(path)
    assert Trace.load(path) == trace


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"source": "x", "depth": 4, "runs": [{"plan": "trie"}]}'])
def test_what_is_no_trace_gets_one_sentence(tmp_path: Path, text: str):
    path = tmp_path / "trace.json"
    path.write_text(text)
    with pytest.raises(TraceError, match="is not an acceptance trace"):
        Trace.load(path)
    with pytest.raises(TraceError, match="cannot be read"):
        Trace.load(tmp_path / "none.json")


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("plan", PLANS)
def test_random_models_follow_a_trace(engine: ScriptedEngine, trace: Trace, plan: str, batch: int):
    run = trace.find(plan, 4)
    (timing,), _ = engine.time(Case(24, batch, 4), [run], requests=8, turns=1)
    assert timing.target_forwards == np.mean([len(script) for script in run.requests])
    assert timing.speed_up == 1
    if plan == "none":
        assert timing.target_tokens == timing.recorded_tokens == 24 + 3 * 4


@pytest.mark.parametrize("k", [1, 4, 50])
def test_what_needs_no_trace_runs_as_wide_as_one_likes(engine: ScriptedEngine, k: int):
    """The first level has 16 prefixes only, so a beam of 50 is narrower there."""
    timings, lost = engine.time(Case(24, 1, k), [plain_run(k, engine.trie), trie_run(k, engine.trie)], requests=2, turns=1)
    assert not lost
    assert [timing.target_forwards for timing in timings] == [4, 2]
    assert all(timing.target_tokens == timing.recorded_tokens for timing in timings)
    assert timings[0].target_tokens == 24 + min(k, 16) + 2 * k


def test_a_plan_that_runs_out_of_memory_is_left_out_with_a_sentence(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch):
    def fail(self: FlatTarget, batch: TreeBatch) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(FlatTarget, "score", fail)
    timings, (sentence,) = engine.time(Case(16, 1, 4), [plain_run(4, engine.trie)], requests=1)
    assert not timings
    assert sentence == "tiny, prompt 16, batch 1, k 4, plan none is left out: the device ran out of memory."


def test_a_draft_that_fails_is_told_and_drafts_again_for_the_next_case(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch):
    def fail(self: OverlookingDraft, batch: TreeBatch) -> torch.Tensor:
        raise torch.OutOfMemoryError

    scripts = ((TraceRound((9, 7), 1, 3, 17), TraceRound((5,), 1, 0, 9)),)
    runs = [plain_run(4, engine.trie), TraceRun("beam:10", 4, 10, scripts)]
    with monkeypatch.context() as failing:
        failing.setattr(OverlookingDraft, "score", fail)
        failing.setattr("verification.engine.calibration.REPEATS", 1)
        engine.costs(16)
        (timing,), (sentence,) = engine.time(Case(16, 1, 4), runs, requests=1, turns=1)
    assert timing.plan == "none"
    assert sentence.startswith("tiny, prompt 16, batch 1, k 4, plan beam:10 is left out. The draft failed, as the log tells")
    timings, lost = engine.time(Case(16, 1, 4), runs, requests=1, turns=1)
    assert [timing.plan for timing in timings] == ["none", "beam:10"]
    assert not lost


def test_a_device_that_is_of_no_more_use_ends_the_process(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(engine, "_synchronize", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        engine.time(Case(16, 1, 4), [plain_run(4, engine.trie)], requests=1)


def test_figures_rest_on_several_turns_whatever_the_batch(engine: ScriptedEngine):
    for batch, requests, turns in ((2, 2, 8), (1, 20, 20)):
        (timing,), _ = engine.time(Case(16, batch, 4), [plain_run(4, engine.trie)], requests)
        assert timing.turns == turns
        assert (timing.batch_p99_ms is None) == (turns < 20)


def test_drafts_are_as_wide_and_as_wrong_as_the_script_says(engine: ScriptedEngine):
    lost = TraceRound((10, 8, 6), 0, 2, 25)
    found = TraceRound((5,), 1, 0, 9)
    half = TraceRound((9, 7), 1, 3, 17)
    run = TraceRun("beam:10", 4, 10, ((lost, half, TraceRound((), 0, 0, 4)), (half, found)))
    (timing,), _ = engine.time(Case(16, 2, 4), [run], requests=2, turns=1)
    assert timing.target_forwards == (3 + 2) / 2
    assert timing.draft_forwards == (3 + 2 + 2 + 1) / 2
    first = (16 + 10 + 8 + 6) + (2 + 9 + 7) + 3  # of the beams, only what was missing is still to be computed
    second = (16 + 9 + 7) + (3 + 5)
    assert timing.target_tokens == (first + second) / 2


def test_a_trace_that_cannot_be_followed_is_an_error_and_leaves_nothing_behind(engine: ScriptedEngine):
    too_short = TraceRun("short", 4, 0, ((TraceRound((), 0, 4, 1), TraceRound((), 0, 0, 4)),))
    (timing,), (sentence,) = engine.time(Case(16, 1, 4), [plain_run(4, engine.trie), too_short], requests=1, turns=1)
    assert timing.target_forwards == 4
    assert "plan short is left out. The searches did not run as the trace says" in sentence


def test_a_trace_holds_numbers_only(trace: Trace, tmp_path: Path):
    path = tmp_path / "trace.json"
    trace.save(path)
    steps = [step for run in json.loads(path.read_text())["runs"] for script in run["requests"] for step in script]
    assert {key for step in steps for key in step} == {"draft", "accepted", "missing", "nodes"}


def test_the_planner_of_another_machine_is_recorded_too(recommender: Recommender):
    histories = [[number, 2 * number, 5] for number in range(6)]
    trace = record(recommender, histories, ["auto@1", "auto@5000"], [1], lambda done: None, source="made up", warm_up=2)
    frugal, lavish = trace.runs
    assert len(frugal.requests) == len(lavish.requests) == 4
    assert sum(map(len, frugal.requests)) > sum(map(len, lavish.requests))
    assert trace.source == "made up"
