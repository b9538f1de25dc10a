"""Latencies in an HdrHistogram, in seconds.

Invariant: a percentile is off by at most 0.1 % of itself, whatever the range, and memory does not grow with the number of values.
"""

import math

from hdrh.histogram import HdrHistogram

_MICROSECONDS = 1e6
_LONGEST_SECONDS = 36_000
_SIGNIFICANT_DIGITS = 3


class LatencyHistogram:
    """Counts of latencies from a microsecond on."""

    def __init__(self) -> None:
        self._counts = HdrHistogram(1, int(_LONGEST_SECONDS * _MICROSECONDS), _SIGNIFICANT_DIGITS)
        self._sum = 0.0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """Count one latency."""
        self._counts.record_value(max(0, round(seconds * _MICROSECONDS)))
        self._sum += seconds
        self.longest = max(self.longest, seconds)

    @property
    def mean(self) -> float:
        """Mean of all, seconds; NaN of none."""
        return self._sum / self._counts.total_count if self._counts.total_count else math.nan

    def percentile(self, percent: float) -> float:
        """The latency that so many percent did not exceed, seconds; NaN of none."""
        if not self._counts.total_count:
            return math.nan
        return min(float(self._counts.get_value_at_percentile(percent)) / _MICROSECONDS, self.longest)
