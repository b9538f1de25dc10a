"""Memory that this process may still take: what the machine has free, limited by the quota of its container.

Invariant: never more than the quota leaves. Reason: what goes beyond it is not refused, the kernel kills the process.
"""

import math
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
# Under version 2, and 1, of the kernel's interface: the limit, what is used, and what of that is files that can be dropped.
_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def free_memory(cgroups: Path = CGROUPS) -> int:
    """Free memory in bytes, at least 0. `cgroups` is where the kernel shows this container's limits."""
    return int(max(0, min(psutil.virtual_memory().available, *(_left(cgroups, *names) for names in _FILES))))


def _left(cgroups: Path, limit: str, used: str, details: str, dropped: str) -> float:
    """Bytes left under a quota; infinite where there is none, or none that can be read."""
    try:
        most = (cgroups / limit).read_text().strip()
        if most == "max":
            return math.inf
        known = dict(line.split() for line in (cgroups / details).read_text().splitlines())
        return int(most) - int((cgroups / used).read_text()) + int(known.get(dropped, 0))
    except OSError:
        return math.inf
