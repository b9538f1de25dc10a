"""Memory that is free: never more than the container's quota leaves. What was freed is kept."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from drafting.memory import KEPT_BYTES, free_memory, keep_freed_memory

V1 = {
    "memory/memory.limit_in_bytes": "5000",
    "memory/memory.usage_in_bytes": "4500",
    "memory/memory.stat": "cache 900\ntotal_inactive_file 300\n",
}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 10_000),
        ({"memory.max": "max", "memory.current": "1", "memory.stat": ""}, 10_000),
        ({"memory.max": "5000", "memory.current": "4500", "memory.stat": "anon 1\ninactive_file 300\n"}, 800),
        ({"memory.max": "50000", "memory.current": "4500", "memory.stat": "anon 1\n"}, 10_000),
        ({"memory.max": "5000", "memory.current": "5100", "memory.stat": "anon 1\n"}, 0),
        (V1, 800),
        (V1 | {"memory/memory.limit_in_bytes": "9223372036854771712"}, 10_000),
    ],
)
def test_what_is_free_is_the_machines_or_the_quotas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], free: int
) -> None:
    memory = psutil.virtual_memory()._replace(available=10_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(tmp_path) == free


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_freed_memory_is_kept() -> None:
    """More than glibc keeps by itself, in a process of its own, for which all of it holds."""
    program = """
import resource
from drafting.memory import keep_freed_memory

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
