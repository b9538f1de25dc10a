"""An outage is a line at its begin, one now and then, and one at its end, however many requests meet it."""

import logging

import pytest

from server.errors import HistoryDamaged
from server.metrics.outages import LINE_SECONDS, OutageLog
from server.metrics.registry import Metrics
from server.try_again import HistoryUnavailable


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outage(clock: Clock, caplog: pytest.LogCaptureFixture) -> OutageLog:
    caplog.set_level(logging.INFO)
    return OutageLog("the store can't read", clock)


def test_an_outage_is_told_at_once_then_counted_and_then_ended(outage: OutageLog, clock: Clock, caplog: pytest.LogCaptureFixture):
    outage.answered()
    for second in range(100):
        clock.now = float(second)
        for _ in range(50):
            outage.failed("it is away.")
    clock.now = 101.5
    for _ in range(10):
        outage.answered()
    assert caplog.messages == [
        "the store can't read: it is away.",
        "the store can't read, 1500 times since the last line: it is away.",
        "the store can't read, 1500 times since the last line: it is away.",
        "the store can't read, 1500 times since the last line: it is away.",
        "the store can't read: no longer, after 101.5 s and 499 more failures",
    ]


def test_what_fails_and_works_in_turns_is_told_as_rarely(outage: OutageLog, clock: Clock, caplog: pytest.LogCaptureFixture):
    for step in range(1000):
        clock.now = step * LINE_SECONDS / 500
        outage.failed("it is away.")
        outage.answered()
    assert len(caplog.messages) == 4


def test_an_outage_soon_after_another_is_told_later(outage: OutageLog, clock: Clock, caplog: pytest.LogCaptureFixture):
    def at(second: float, failures: int = 0) -> list[str]:
        clock.now = second
        for _ in range(failures):
            outage.failed("it is away.")
        if not failures:
            outage.answered()
        told = list(caplog.messages)
        caplog.clear()
        return told

    assert at(0, 1) == ["the store can't read: it is away."]
    assert at(1) == ["the store can't read: no longer, after 1.0 s and 0 more failures"]
    # Seconds of failures that are over before there may be a line.
    assert at(5, 60) + at(15, 40) + at(16) + at(20) == []
    assert at(LINE_SECONDS) == ["the store can't read, 100 times since the last line, which is over"]
    # It is no part of the next one, which is told at once. Where that comes before any success, one line tells of both.
    assert at(40, 1) == ["the store can't read: it is away."]
    assert at(41) == ["the store can't read: no longer, after 1.0 s and 0 more failures"]
    assert at(45, 7) + at(46) == []
    assert at(80, 1) == ["the store can't read, and 7 times before, which was over: it is away."]
    assert at(82, 3) == []
    assert at(83) == ["the store can't read: no longer, after 3.0 s and 3 more failures"]
    # One that begins too soon and goes on lasts since its first failure.
    assert at(90, 5) == []
    assert at(111, 1) == ["the store can't read, 6 times since the last line: it is away."]
    assert at(112) == ["the store can't read: no longer, after 22.0 s and 0 more failures"]
    assert at(500) == []


def test_operations_of_a_store_are_told_apart_and_counted(caplog: pytest.LogCaptureFixture):
    metrics = Metrics()
    for _ in range(20):
        with pytest.raises(HistoryUnavailable), metrics.history_operation("append"):
            raise HistoryUnavailable("Redis is full.")
        with metrics.history_operation("read"):
            pass
    assert caplog.messages == ["the history store can't append: Redis is full."]
    assert metrics.registry.get_sample_value("atspeed_history_errors_total", {"operation": "append"}) == 20
    with metrics.history_operation("append"):
        pass
    assert caplog.messages[1].startswith("the history store can't append: no longer, after ")


def test_damage_is_counted_by_where_it_was_found_and_told_without_a_user(caplog: pytest.LogCaptureFixture):
    metrics = Metrics()
    for _ in range(5):
        with pytest.raises(HistoryDamaged), metrics.history_operation("read"):
            raise HistoryDamaged("anna")
        metrics.observe_damage("event", "An event can't be read.")
    metrics.observe_damage("file", "The file is damaged.")
    counts = [metrics.registry.get_sample_value("atspeed_history_damage_total", {"found": found}) for found in ("history", "event", "file")]
    assert counts == [5, 5, 1]
    assert len(caplog.messages) == 3
    assert "anna" not in caplog.text
