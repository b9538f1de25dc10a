"""Memory that is free: never more than the container's quota leaves."""

from pathlib import Path

import psutil
import pytest

from drafting.memory import free_memory

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
