"""The memory of the two processes, at rest.

Invariant: a process is compared with itself alone, at idle points between phases of equal work: nothing runs and nothing waits then, and
the ledgers have just been read through, so whatever a phase leaves behind shows. What counts is resident memory.
"""

from collections.abc import Sequence

import msgspec
import psutil

MOST_GROWTH = 0.02
# Share of a process's idle points that are left out: the first ones see caches and pools fill.
WARM_UP_SHARE = 1 / 3
FEWEST_POINTS = 4


class IdlePoint(msgspec.Struct, frozen=True, kw_only=True):
    """One look.

    Attributes:
        seconds: since the soak began.
        api, engine: ids of the processes.
        api_mib, engine_mib: their resident memory.
    """

    seconds: float
    api: int
    engine: int
    api_mib: float
    engine_mib: float


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """The growth of one process, over the longest time that one lived.

    Attributes:
        points: idle points of that process.
        from_mib: after the warm-up.
        most_mib: the most at any later point.
    """

    points: int
    from_mib: float
    most_mib: float

    @property
    def share(self) -> float:
        """How much it grew."""
        return self.most_mib / self.from_mib - 1


def idle_point(seconds: float, api: int, engine: int) -> IdlePoint:
    """Look at both processes."""
    return IdlePoint(seconds=round(seconds, 1), api=api, engine=engine, api_mib=_resident_mib(api), engine_mib=_resident_mib(engine))


def api_growth(points: Sequence[IdlePoint]) -> Growth | None:
    """Growth of the API process; None if none lived for `FEWEST_POINTS`."""
    return _growth([(point.api, point.api_mib) for point in points])


def engine_growth(points: Sequence[IdlePoint]) -> Growth | None:
    """Growth of the engine process; None if none lived for `FEWEST_POINTS`."""
    return _growth([(point.engine, point.engine_mib) for point in points])


def _growth(looks: Sequence[tuple[int, float]]) -> Growth | None:
    lives: list[list[float]] = []
    last = None
    for process, mib in looks:
        if process != last:
            lives.append([])
        lives[-1].append(mib)
        last = process
    longest = max(lives, key=len, default=[])
    if len(longest) < FEWEST_POINTS:
        return None
    settled = longest[max(1, round(WARM_UP_SHARE * len(longest))) :]
    return Growth(points=len(longest), from_mib=settled[0], most_mib=max(settled))


def _resident_mib(process: int) -> float:
    return round(int(psutil.Process(process).memory_info().rss) / 2**20, 2)
