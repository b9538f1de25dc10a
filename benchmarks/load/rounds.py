"""Latency under load compared with latency without load; both, and the saturation, are measured anew in every round.

Invariant: a ratio compares what was measured within one round, one after the other, and the figure is the median of the rounds. Reason: the
speed of a shared machine changes, and a share of what it could do ten minutes ago may be more than it can do now.
"""

import math
from collections.abc import Callable
from statistics import median

import msgspec

from benchmarks.load.report import LoadReport

ROUNDS = 3
# Overload, as a multiple of the most that a server has done: more than it can do even if the machine has become faster, and not so much
# that refusals take its time.
OVERLOAD = 1.4
BUSY_SHARE = 0.7
IDLE_RPS = 1.0


class Round(msgspec.Struct, kw_only=True):
    """One round.

    Attributes:
        saturation_rps: lists a second of an overloaded server.
        busy: at `BUSY_SHARE` of that.
        idle: nearly no load.
    """

    saturation_rps: float
    busy: LoadReport
    idle: LoadReport

    @property
    def ratio(self) -> float:
        """The busy server's p99 in p50s of the idle one; without end if either had no list to time."""
        if self.busy.p99_ms is None or not self.idle.p50_ms:
            return math.inf
        return self.busy.p99_ms / self.idle.p50_ms


def measure_rounds(load: Callable[[float], LoadReport], expected_rps: float, count: int = ROUNDS) -> list[Round]:
    """Run rounds.

    Args:
        load: measures the server at a rate.
        expected_rps: the most that it has done so far.
    """
    rounds: list[Round] = []
    for _ in range(count):
        saturation = load(round(OVERLOAD * expected_rps, 1)).completed_rps
        busy = load(round(BUSY_SHARE * saturation, 1))
        rounds.append(Round(saturation_rps=saturation, busy=busy, idle=load(IDLE_RPS)))
        expected_rps = max(expected_rps, saturation)
    return rounds


def median_ratio(rounds: list[Round]) -> float:
    """The median of the rounds' ratios."""
    return median(one.ratio for one in rounds)
