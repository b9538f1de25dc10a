"""What was freed is kept."""

import ctypes
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from drafting.freed_memory import KEPT_BYTES, keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_freed_memory_is_kept() -> None:
    """More than glibc keeps by itself, in a process of its own, for which all of it holds."""
    program = """
import resource
from drafting.freed_memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"x") * 50_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

size = faults()
assert faults() > size / 2
keep_freed_memory()
faults()
assert faults() < size / 100
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_glibc_that_takes_no_high_threshold_gets_the_highest_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    trim, mmap = -1, -3
    told: dict[int, int] = {}

    def mallopt(name: int, value: int) -> int:
        if name == mmap and value > 2**25:
            return 0
        told[name] = value
        return 1

    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.31"))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    assert told == {trim: KEPT_BYTES, mmap: 2**25}
