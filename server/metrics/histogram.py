"""`LoopHistogram`: a histogram that only the event loop observes.

Invariant: Prometheus reads of it what it reads of prometheus_client's own. Reason: that one takes locks and goes through its buckets one by
one, for threads that do not observe these; and each step of the engine observes several.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import INF, floatToGoString


class LoopHistogram(Collector):
    """A histogram with labels or without."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, registry: CollectorRegistry, buckets: Sequence[float]
    ) -> None:
        """`buckets` are upper bounds, rising; infinity is added."""
        self._name, self._documentation, self._labels = name, documentation, labels
        self._bounds = (*buckets, INF)
        # By series: the counts by bucket, and the sum.
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        if not labels:
            self._begin()
        registry.register(self)

    def observe(self, amount: float, *labels: str) -> None:
        """Count one amount under the values of its labels."""
        if labels not in self._sums:
            self._begin(*labels)
        self._counts[labels][bisect_left(self._bounds, amount)] += 1
        self._sums[labels] += amount

    def _begin(self, *labels: str) -> None:
        self._counts[labels], self._sums[labels] = [0] * len(self._bounds), 0.0

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Its name, for the registry."""
        return [HistogramMetricFamily(self._name, self._documentation)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Its samples, as Prometheus reads them."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        bounds = [floatToGoString(bound) for bound in self._bounds]  # type: ignore[no-untyped-call]
        for labels, counts in self._counts.items():
            family.add_metric(labels, list(zip(bounds, accumulate(map(float, counts)), strict=True)), self._sums[labels])
        return [family]
