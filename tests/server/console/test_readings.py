"""Figures from metrics: percentiles of histograms, rates, and a server that has started anew."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from server.console.operate.readings import LISTS, Reading, Readings, percentile
from server.metrics.registry import LATENCY_BUCKETS

SECONDS = st.lists(st.floats(0, 4), min_size=1, max_size=50)


def exposition(*seconds: float, popular: int = 0) -> str:
    """Metrics of a server that has answered lists in these times, each with a draft accepted on level 1, and popular lists."""
    registry = CollectorRegistry()
    latency = Histogram("atspeed_request_latency_seconds", "", ["route", "status"], registry=registry, buckets=LATENCY_BUCKETS)
    lists = Counter("atspeed_plan_decisions", "", ["plan"], registry=registry)
    accepted = Counter("atspeed_accepted_steps", "", ["depth"], registry=registry)
    for each in seconds:
        latency.labels(LISTS, "200").observe(each)
        lists.labels("auto").inc()
        accepted.labels("1").inc()
    latency.labels("/metrics", "200").observe(4.0)
    Counter("atspeed_popular_lists", "", ["reason"], registry=registry).labels("unknown-user").inc(popular)
    return generate_latest(registry).decode()


@given(SECONDS, st.floats(0.01, 1))
def test_a_percentile_lies_in_the_bucket_of_the_true_one(seconds: list[float], share: float):
    found = Reading.of(exposition(*seconds)).percentile(share)
    true = sorted(seconds)[max(-int(-share * len(seconds) // 1), 1) - 1]
    bounds = [0.0, *LATENCY_BUCKETS, LATENCY_BUCKETS[-1]]
    assert found is not None
    assert any(low <= found <= high and (low <= true <= high or true > LATENCY_BUCKETS[-1] == found) for low, high in pairwise(bounds))


def test_percentiles_by_hand():
    assert percentile([(1.0, 5.0), (2.0, 10.0), (float("inf"), 10.0)], 0.5) == 1.0
    assert percentile([(1.0, 5.0), (2.0, 10.0), (float("inf"), 10.0)], 0.75) == 1.5
    assert percentile([(1.0, 0.0), (float("inf"), 4.0)], 0.5) == 1.0
    assert percentile([(1.0, 0.0), (float("inf"), 0.0)], 0.5) is None


def test_what_came_between_two_readings():
    readings = Readings()
    for text in (exposition(0.01), exposition(0.01, 0.2, 0.2, popular=5)):
        readings.take(Reading.of(text))
    lately = readings.lately
    assert lately is not None
    assert (lately.lists(), readings.now.lists()) == (7, 8)
    assert lately.percentile(0.01) > 0.15
    assert lately.accepted_by_level() == [(1, 1.0)]


def test_a_server_that_started_anew_counts_from_there():
    before, now = Reading.of(exposition(0.01, 0.01)), Reading.of(exposition(0.2))
    assert now.since(before) == now
