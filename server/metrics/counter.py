"""`LoopCounter`: a counter that only the event loop counts with.

Invariant: Prometheus reads of it what it reads of prometheus_client's own. Reason: that one looks a series up under one lock and counts
under another, for threads that do not count these; and each list counts a dozen.
"""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class LoopCounter(Collector):
    """A counter with labels or without."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = (), *, registry: CollectorRegistry) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        # By series.
        self._counts: dict[tuple[str, ...], float] = {}
        if not labels:
            self.begin()
        registry.register(self)

    def begin(self, *labels: str) -> None:
        """Have a series be there before anything is counted in it: a rate over one that isn't there would miss the first count."""
        self._counts[labels] = 0.0

    def inc(self, amount: float = 1, *labels: str) -> None:
        """Count an amount under the values of its labels."""
        self._counts[labels] = self._counts.get(labels, 0.0) + amount

    def describe(self) -> Iterable[CounterMetricFamily]:
        """Its name, for the registry."""
        return [CounterMetricFamily(self._name, self._documentation)]

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Its samples, as Prometheus reads them."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        return [family]
