"""The processors that this process may use, which are its CPU affinity, limited by the quota of its container, and the threads of libraries
on them.

Invariant: never more than the quota. Reason: threads beyond it make the kernel stop the whole container for the rest of each tenth of a
second, the event loop included, which no request's deadline survives.
"""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_processors(cgroups: Path = CGROUPS) -> int:
    """A whole number, at least 1. `cgroups` is where the kernel shows this container's limits, of version 2 or 1."""
    return max(1, int(min(len(os.sched_getaffinity(0)), _quota(cgroups))))


def bound_linear_algebra(threads: int | None = None) -> None:
    """Let numpy's and scipy's linear algebra use so many threads; by default as many as the environment says, else all usable processors:
    their library (OpenBLAS) knows of no quota.

    Call it before numpy is imported, which reads the number once.
    """
    if threads is not None:
        os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    elif "OMP_NUM_THREADS" not in os.environ:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", str(usable_processors()))


def let_waiting_threads_sleep() -> None:
    """Let torch's threads sleep while they wait for each other, unless the environment says how they wait.

    By default they spin: where another process needs one of their processors they burn its time, and two threads beside one busy process
    take several times as long as one. Call it before torch is loaded, which reads this once.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def train_with_threads(threads: int | None = None) -> None:
    """Load torch for training on so many threads, which sleep while they wait; by default `OMP_NUM_THREADS`, else all usable processors.

    Raises:
        ImportError: torch is not installed.
    """
    let_waiting_threads_sleep()
    import torch

    if threads is not None or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads or usable_processors())


def _quota(cgroups: Path) -> float:
    """Processors' worth of time; infinite where there is no limit, or none that can be read."""
    try:
        if (limit := cgroups / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota, period = ((cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(quota) / int(period) if quota not in ("max", "-1") else math.inf
    except OSError:
        return math.inf
