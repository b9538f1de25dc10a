"""The histograms of the event loop, against prometheus_client's own."""

import numpy as np
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from server.metrics.histogram import LoopHistogram
from server.metrics.registry import COUNT_BUCKETS, LATENCY_BUCKETS


def amounts(buckets: tuple[float, ...]) -> list[float]:
    return [*buckets, 0, 1e9, *np.random.default_rng(0).exponential(0.1, 500).tolist()]


def test_prometheus_reads_the_same():
    for buckets in (LATENCY_BUCKETS, COUNT_BUCKETS):
        ours, theirs = CollectorRegistry(), CollectorRegistry()
        histogram = LoopHistogram("atspeed_seconds", "Of a test.", registry=ours, buckets=buckets)
        reference = Histogram("atspeed_seconds", "Of a test.", registry=theirs, buckets=buckets)
        assert generate_latest(ours) == generate_latest(theirs)
        for amount in amounts(buckets):
            histogram.observe(amount)
            reference.observe(amount)
        assert generate_latest(ours) == generate_latest(theirs)


def test_prometheus_reads_the_same_by_labels():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    names = ["route", "status"]
    histogram = LoopHistogram("atspeed_seconds", "Of a test.", names, registry=ours, buckets=LATENCY_BUCKETS)
    reference = Histogram("atspeed_seconds", "Of a test.", names, registry=theirs, buckets=LATENCY_BUCKETS)
    assert generate_latest(ours) == generate_latest(theirs)
    for number, amount in enumerate(amounts(LATENCY_BUCKETS)):
        values = ('/a "b"\\{c}', "/d")[number % 2], str(200 + number % 3)
        histogram.observe(amount, *values)
        reference.labels(*values).observe(amount)
    assert generate_latest(ours) == generate_latest(theirs)
