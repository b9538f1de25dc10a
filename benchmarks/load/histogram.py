"""Latencies in buckets, as HdrHistogram keeps them.

Invariant: a percentile is off by at most 0.2 % of itself, whatever the range, and memory does not grow with the number of values: within
each power of two of microseconds there are as many buckets, evenly spaced.
"""

import math
from collections import Counter

_SUB_BITS = 10


class LatencyHistogram:
    """Counts of latencies from a microsecond on."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._sum = 0.0
        self.count = 0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """Counts one latency."""
        self._counts[_bucket(max(0, round(seconds * 1e6)))] += 1
        self._sum += seconds
        self.count += 1
        self.longest = max(self.longest, seconds)

    @property
    def mean(self) -> float:
        """Mean of all, seconds; NaN of none."""
        return self._sum / self.count if self.count else math.nan

    def percentile(self, percent: float) -> float:
        """The latency that so many percent did not exceed, seconds; NaN of none."""
        # Rounded, because 99.9 percent of 5000 is 4995, and in floating point a little more.
        wanted, seen = math.ceil(round(self.count * percent / 100, 6)), 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                return min(_upper(bucket) / 1e6, self.longest)
        return math.nan


def _bucket(micros: int) -> int:
    """Values under 2**_SUB_BITS have a bucket each; above, each power of two has half as many."""
    shift = max(0, micros.bit_length() - _SUB_BITS)
    return (shift << _SUB_BITS) + (micros >> shift)


def _upper(bucket: int) -> int:
    """The largest value of a bucket, microseconds."""
    shift, top = bucket >> _SUB_BITS, bucket & ((1 << _SUB_BITS) - 1)
    return ((top + 1) << shift) - 1
