"""The counters of the event loop, against prometheus_client's own."""

from prometheus_client import CollectorRegistry, Counter, generate_latest

from server.metrics.counter import LoopCounter
from server.metrics.registry import HISTORY_OPERATIONS


def test_prometheus_reads_the_same():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counter = LoopCounter("atspeed_lists_total", "Of a test.", registry=ours)
    reference = Counter("atspeed_lists_total", "Of a test.", registry=theirs)
    assert generate_latest(ours) == generate_latest(theirs)
    for amount in (1, 0, 2.5, True, 10**9):
        counter.inc(amount)
        reference.inc(amount)
    assert generate_latest(ours) == generate_latest(theirs)


def test_prometheus_reads_the_same_by_labels():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    names = ["route", "operation"]
    counter = LoopCounter("atspeed_lists_total", "Of a test.", names, registry=ours)
    reference = Counter("atspeed_lists_total", "Of a test.", names, registry=theirs)
    assert generate_latest(ours) == generate_latest(theirs)
    for operation in HISTORY_OPERATIONS:
        counter.begin("/d", operation)
        reference.labels("/d", operation)
    assert generate_latest(ours) == generate_latest(theirs)
    for number in range(20):
        values = ('/a "b"\\{c}', "/d")[number % 2], HISTORY_OPERATIONS[number % 3]
        counter.inc(number, *values)
        reference.labels(*values).inc(number)
    assert generate_latest(ours) == generate_latest(theirs)
