"""What Prometheus is told of speculation: bounded labels, and a draft that is up, down and up again."""

import msgspec

from drafting.beam.rule import SearchRule, Verification
from server.messages import FailedList, FinishedList, Progress, StepRecord
from server.metrics.registry import Metrics
from tests.server.fake_ready import READY
from verification.result import BeamResult, RankedItem, StepReport, Usage


def progress(*steps: StepReport, finished: tuple[FinishedList, ...] = ()) -> Progress:
    return Progress(list(finished), [], [StepRecord(step, 0.0, step.seconds) for step in steps], running=0, waiting=0, used_slots=0)


def finished(plan: str, verification: Verification, depths: tuple[int, ...], drafted: int, used: int) -> FinishedList:
    usage = Usage(10, 0, 4 - len(depths), 3, drafted_nodes=drafted, used_by={"beam": used}, accepted_depths=depths, plan=plan)
    return FinishedList(BeamResult("a", (RankedItem(0, -1.0, 1),), usage, SearchRule(verification)), 0.001, 0.002)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"atspeed_{name}", labels)


def test_lists_are_counted_by_what_was_drafted_and_how_it_was_judged():
    metrics = Metrics()
    lists = (
        finished("auto:beam", Verification.STRICT, (1, 2), drafted=120, used=50),
        finished("auto:beam", Verification.STRICT, (1,), drafted=40, used=10),
        finished("auto:none", Verification.RELAXED, (), drafted=0, used=0),
    )
    metrics.observe_progress(progress(finished=lists))
    strict, relaxed = {"plan": "auto:beam", "verification": "strict"}, {"plan": "auto:none", "verification": "relaxed"}
    assert value(metrics, "plan_decisions_total", **strict) == 2
    assert value(metrics, "plan_decisions_total", **relaxed) == 1
    assert value(metrics, "target_forwards_total", **strict) == 2 + 3
    assert value(metrics, "target_forwards_total", **relaxed) == 4
    assert [value(metrics, "accepted_steps_total", depth=depth, **strict) for depth in ("1", "2", "3")] == [2, 1, None]
    assert (value(metrics, "drafted_nodes_total"), value(metrics, "wasted_nodes_total")) == (160, 100)


def test_a_prompt_of_which_some_was_cached_is_a_hit():
    metrics = Metrics()
    for cached in (0, 3, 9):
        done = FinishedList(BeamResult("a", (), Usage(10, cached, 4)), 0.0, 0.0)
        metrics.observe_progress(Progress([done], [], [], running=0, waiting=0, used_slots=0, cached_slots=7))
    assert [value(metrics, "cache_lookups_total", outcome=outcome) for outcome in ("hit", "miss")] == [2, 1]
    assert (value(metrics, "cached_tokens_total"), value(metrics, "prompt_tokens_total"), value(metrics, "kv_slots_cached")) == (12, 30, 7)


def test_lists_that_the_model_fails_on_are_counted_and_others_without_a_list_are_not():
    metrics = Metrics()
    assert value(metrics, "not_finite_lists_total") == 0
    failed = [FailedList("a", not_finite=True), FailedList("b"), FailedList("c", "It is refused."), FailedList("d", not_finite=True)]
    metrics.observe_progress(msgspec.structs.replace(progress(), failed=failed))
    assert value(metrics, "not_finite_lists_total") == 2


def test_steps_tell_draft_and_target_apart():
    metrics = Metrics()
    step = StepReport((), tokens=90, seconds=0.02, target_seconds=0.012, draft_tokens=70, draft_forwards=3, draft_seconds=0.005)
    metrics.observe_progress(progress(step, step))
    assert value(metrics, "target_seconds_sum") == 0.024
    assert value(metrics, "draft_seconds_sum") == 0.01
    assert (value(metrics, "draft_tokens_total"), value(metrics, "draft_forwards_total")) == (140, 6)


def test_forwards_are_counted_by_whether_a_graph_fitted():
    metrics = Metrics()
    metrics.observe_progress(progress())
    assert value(metrics, "graph_forwards_total", outcome="replayed") is None
    for _ in range(2):
        metrics.observe_progress(msgspec.structs.replace(progress(), graphs_replayed=5, graphs_skipped=1))
    assert [value(metrics, "graph_forwards_total", outcome=outcome) for outcome in ("replayed", "skipped")] == [10, 2]


def test_a_draft_is_up_until_it_fails_or_its_engine_is_gone():
    metrics = Metrics()
    assert value(metrics, "draft_up") == 0
    metrics.observe_ready(READY, has_draft=True)
    assert value(metrics, "draft_up") == 1
    metrics.observe_progress(progress(StepReport((), tokens=9, seconds=0.01, draft_failed=True), StepReport((), tokens=9, seconds=0.01)))
    assert (value(metrics, "draft_up"), value(metrics, "drafts_dropped_total"), value(metrics, "engine_up")) == (0, 1, 1)
    metrics.observe_ready(READY, has_draft=True)
    metrics.observe_engine_gone()
    assert (value(metrics, "draft_up"), value(metrics, "engine_up")) == (0, 0)
    assert value(metrics, "drafts_dropped_total") == 1


def test_a_draft_that_fails_before_its_engine_is_ready_is_counted_too():
    metrics = Metrics()
    without = msgspec.structs.replace(READY, drafts=False)
    metrics.observe_ready(without, has_draft=False)
    assert (value(metrics, "draft_up"), value(metrics, "drafts_dropped_total")) == (0, 0)
    metrics.observe_ready(without, has_draft=True)
    assert (value(metrics, "draft_up"), value(metrics, "drafts_dropped_total")) == (0, 1)


def test_a_loop_that_stands_still_is_late_to_all_looks_that_it_misses():
    """One late look among hundreds would show in no percentile, however many requests waited meanwhile."""
    metrics = Metrics()
    for _ in range(99):
        metrics.observe_lag(0.0)
    metrics.observe_lag(1.05)
    assert value(metrics, "event_loop_lag_seconds_count") == 99 + 11
    assert value(metrics, "event_loop_lag_seconds_bucket", le="0.1") == 99 + 1
    assert value(metrics, "event_loop_lag_seconds_bucket", le="1.0") == 99 + 10
    # After a night in which the machine stood still, it does not count for long.
    metrics.observe_lag(86_400.0)
    assert value(metrics, "event_loop_lag_seconds_count") == 99 + 11 + 601
