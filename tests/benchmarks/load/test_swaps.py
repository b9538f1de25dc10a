"""A measurement of swaps whose swaps fail is none."""

from types import SimpleNamespace

import httpx
import pytest

from benchmarks.endings import BenchmarkError
from benchmarks.load import swaps


def test_a_swap_that_fails_under_load_fails_the_measurement(monkeypatch: pytest.MonkeyPatch):
    """It once ended its thread in silence, and the report told of swaps that had not been."""
    asked = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(200 if asked <= 1 else 503, json={"detail": "There is no engine."})

    def load(_: object) -> list[SimpleNamespace]:
        swaps.time.sleep(0.1)
        return [SimpleNamespace(p50_ms=1, p99_ms=1, max_ms=1, requests=1, on_time=1, late=0)]

    monkeypatch.setattr(swaps, "run_runs", load)
    client = httpx.Client(base_url="http://server", transport=httpx.MockTransport(answer))
    server = SimpleNamespace(url="http://server", client=client, memory_mib=lambda: 1.0)
    with pytest.raises(BenchmarkError, match=r"Version 0 could not be activated \(503\): .*There is no engine"):
        swaps.measure(server, items=10, versions=1, rate=1, seconds=1, pause_seconds=0.01)
