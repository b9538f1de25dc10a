"""Memory that this process may still take: what the machine has free, limited by the quota of its container; and what it keeps.

Invariant: never more than the quota leaves. Reason: what goes beyond it is not refused, the kernel kills the process.
"""

import ctypes
import math
import platform
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
# Under version 2, and 1, of the kernel's interface: the limit, what is used, and what of that is files that can be dropped.
_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
# glibc's numbers of what `mallopt` sets: free bytes at the end of the heap, and the size from which memory is the kernel's own.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**28
# Older releases of glibc take no higher threshold.
_OLD_MMAP_BYTES = 2**25


def free_memory(cgroups: Path = CGROUPS) -> int:
    """In bytes, at least 0. `cgroups` is where the kernel shows this container's limits."""
    return int(max(0, min(psutil.virtual_memory().available, *(_left(cgroups, *names) for names in _FILES))))


def _left(cgroups: Path, limit: str, used: str, details: str, dropped: str) -> float:
    """What a quota leaves; infinite where there is none, or none that can be read."""
    try:
        most = (cgroups / limit).read_text().strip()
        if most == "max":
            return math.inf
        known = dict(line.split() for line in (cgroups / details).read_text().splitlines())
        return int(most) - int((cgroups / used).read_text()) + int(known.get(dropped, 0))
    except OSError:
        return math.inf


def keep_freed_memory() -> None:
    """Have the C library keep up to `KEPT_BYTES` that are freed, where it is glibc.

    By itself it gives back what a wide forward has used, and the kernel clears it anew, page by page, for the next one.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
    # The first has frozen the second, wherever that was.
    if not mallopt(_MMAP_THRESHOLD, KEPT_BYTES):
        mallopt(_MMAP_THRESHOLD, _OLD_MMAP_BYTES)
