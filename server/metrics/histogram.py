"""`LoopHistogram`: a histogram that only the event loop observes.

Invariant: Prometheus reads of it what it reads of prometheus_client's own. Reason: that one takes locks and goes through its buckets one by
one, for threads and labels that a step of the engine does not have; and each step observes several.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import INF, floatToGoString


class LoopHistogram(Collector):
    """A histogram without labels."""

    def __init__(self, name: str, documentation: str, *, registry: CollectorRegistry, buckets: Sequence[float]) -> None:
        """`buckets` are upper bounds, rising; infinity is added."""
        self._name, self._documentation = name, documentation
        self._bounds = (*buckets, INF)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        registry.register(self)

    def observe(self, amount: float) -> None:
        """Count one amount."""
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._sum += amount

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Its name, for the registry."""
        return [HistogramMetricFamily(self._name, self._documentation)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Its samples, as Prometheus reads them."""
        bounds = map(floatToGoString, self._bounds)
        counts = accumulate(map(float, self._counts))
        return [HistogramMetricFamily(self._name, self._documentation, list(zip(bounds, counts, strict=True)), self._sum)]
