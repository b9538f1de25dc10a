"""A measurement of swaps whose swaps fail is none."""

import threading
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from benchmarks.endings import BenchmarkError
from benchmarks.load import swaps
from server.client import AtspeedClient
from server.http.problems import Problem


def test_a_swap_that_fails_under_load_fails_the_measurement(monkeypatch: pytest.MonkeyPatch):
    """It once ended its thread in silence, and the report told of swaps that had not been."""
    asked = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        if asked <= 1:
            return httpx.Response(200, json={"version": "version-0", "by": "measurement", "at": 1.0})
        return httpx.Response(503, json=Problem(503, "There is no engine.").members())

    def load(_: object) -> list[SimpleNamespace]:
        swaps.time.sleep(0.1)
        return [SimpleNamespace(p50_ms=1, p99_ms=1, max_ms=1, requests=1, on_time=1, late=0)]

    monkeypatch.setattr(swaps, "run_runs", load)
    transport = httpx.MockTransport(answer)
    server = SimpleNamespace(url="http://server", api=lambda: AtspeedClient("http://server", transport=transport), memory_mib=lambda: 1.0)
    with pytest.raises(BenchmarkError, match=r"Version 0 could not be activated \(503\): .*There is no engine"):
        swaps.measure(server, items=10, versions=1, rate=1, seconds=1, pause_seconds=0.01)


def test_prompts_are_cached_before_what_is_compared(monkeypatch: pytest.MonkeyPatch):
    """The run without swaps cached them for the one with swaps, which so seemed to make lists faster."""
    events: list[str] = []
    swapped = threading.Event()

    def load(_: object) -> list[SimpleNamespace]:
        events.append("load")
        number = events.count("load")
        assert number < 3 or swapped.wait(60)
        return [SimpleNamespace(p50_ms=number, p99_ms=1, max_ms=1, requests=1, on_time=1, late=0)]

    def activate(*_: object) -> None:
        events.append("activate")
        if events.count("load") == 3:
            swapped.set()

    monkeypatch.setattr(swaps, "run_runs", load)
    monkeypatch.setattr(swaps, "_activate", activate)
    server: Any = SimpleNamespace(url="http://server", memory_mib=lambda: 1.0)
    figures = swaps.measure(server, items=10, versions=1, rate=1, seconds=1, pause_seconds=0.0)
    assert events[:3] == ["load", "load", "activate"]
    assert (figures.quiet_ms[0], figures.swapping_ms[0]) == (2, 3)
