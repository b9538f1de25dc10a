"""Readings of a server's metrics, and what follows from two of them: rates, percentiles, shares.

Invariant: figures are of the time between two readings, or of all time since the server's start; a counter that has gone down means that
the server has started anew, and everything counts from there.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

LISTS = "/v1/recommendations"
WINDOW_SECONDS = 60.0
_LATENCY = "atspeed_request_latency_seconds"

# Name and labels of a series.
Series = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class Reading:
    """All series at one time.

    Attributes:
        at: seconds on a monotonic clock.
    """

    at: float
    values: dict[Series, float]

    @classmethod
    def of(cls, text: str) -> "Reading":
        """Parse what `/metrics` answers."""
        families = text_string_to_metric_families(text)
        samples = (sample for family in families for sample in family.samples)
        return cls(time.monotonic(), {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples})

    def series(self, name: str, **labels: str) -> Iterator[tuple[dict[str, str], float]]:
        """The series of a name that have these labels."""
        for (each, found), value in self.values.items():
            if each == name and labels.items() <= found:
                yield dict(found), value

    def total(self, name: str, **labels: str) -> float:
        """The sum of these series."""
        return sum(value for _, value in self.series(name, **labels))

    def since(self, before: "Reading | None") -> "Reading":
        """The differences from an earlier reading; all of this one if there is none, or if the server has started anew since."""
        if before is None or any(
            value < before.values.get(series, 0.0) for series, value in self.values.items() if series[0].endswith("_total")
        ):
            return self
        return Reading(self.at - before.at, {series: value - before.values.get(series, 0.0) for series, value in self.values.items()})

    def lists(self) -> float:
        """Lists that were answered, those of popular items among them."""
        return self._made() + self.total("atspeed_popular_lists_total")

    def _made(self) -> float:
        """Lists that the model made."""
        return self.total("atspeed_plan_decisions_total")

    def percentile(self, share: float) -> float | None:
        """Seconds within which this share of the requests for lists was answered, interpolated in its bucket; None without any."""
        bounds: dict[float, float] = {}
        for labels, value in self.series(f"{_LATENCY}_bucket", route=LISTS):
            bound = float(labels["le"])
            bounds[bound] = bounds.get(bound, 0.0) + value
        return percentile(sorted(bounds.items()), share)

    def cached_share(self) -> float | None:
        """Share of the prompts' tokens that were not computed again; None without any."""
        prompt = self.total("atspeed_prompt_tokens_total")
        return self.total("atspeed_cached_tokens_total") / prompt if prompt else None

    def accepted_by_level(self) -> list[tuple[int, float]]:
        """For each level on which a draft was ever accepted, the share of the model's lists for which it was."""
        lists = self._made()
        levels: dict[int, float] = {}
        for labels, value in self.series("atspeed_accepted_steps_total"):
            levels[int(labels["depth"])] = levels.get(int(labels["depth"]), 0.0) + value
        return [(level, count / lists) for level, count in sorted(levels.items())] if lists else []


def percentile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """A percentile of a histogram: upper bounds with the counts up to them. In the bucket without a bound it is the last bound there is."""
    if not buckets or not buckets[-1][1]:
        return None
    wanted = share * buckets[-1][1]
    below, counted = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            return below if bound == float("inf") else below + (bound - below) * (wanted - counted) / ((count - counted) or 1.0)
        below, counted = bound, count
    return below


class Readings:
    """The readings of the last minute, and the figures of each interval between them."""

    def __init__(self) -> None:
        self._kept: deque[Reading] = deque()
        self.rates: deque[float] = deque(maxlen=60)

    def take(self, reading: Reading) -> None:
        """Add a reading; those that are older than a minute are forgotten but for the newest of them."""
        if self._kept:
            last = self._kept[-1]
            self.rates.append(max(reading.lists() - last.lists(), 0.0) / max(reading.at - last.at, 1e-9))
        self._kept.append(reading)
        while len(self._kept) > 2 and reading.at - self._kept[1].at >= WINDOW_SECONDS:
            self._kept.popleft()

    @property
    def now(self) -> Reading:
        """The newest."""
        return self._kept[-1]

    @property
    def lately(self) -> Reading | None:
        """The differences between the newest reading and the oldest; None before there are two."""
        return self.now.since(self._kept[0]) if len(self._kept) > 1 else None

    @property
    def seconds(self) -> float:
        """The time between the oldest and the newest."""
        return self.now.at - self._kept[0].at
