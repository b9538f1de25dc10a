"""The console beside a server, on console processes that end whenever a test says so."""

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from server.engine.backoff import HEALTHY_SECONDS
from server.http import console
from server.http.console import ConsoleProcess
from server.settings import Settings


class _Over(Exception):
    """No console process is left."""


async def test_a_console_that_ran_for_long_is_back_as_soon_as_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    now, pauses = 0.0, []
    lives = iter((0.1, 0.1, OSError("no memory"), 86_400.0, HEALTHY_SECONDS / 2))

    async def run_once(self: ConsoleProcess) -> int:
        nonlocal now
        life = next(lives, None)
        if life is None:
            raise _Over
        if isinstance(life, OSError):
            raise life
        now += life
        return 1

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)

    monkeypatch.setattr(ConsoleProcess, "_run_once", run_once)
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(console, "asyncio", SimpleNamespace(sleep=sleep))
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as server:
        process = ConsoleProcess(listener, server, Settings(target=tmp_path, catalog=tmp_path, engine="transformers"))
        with pytest.raises(_Over):
            await process._watch()
    assert pauses == [1.0, 2.0, 4.0, 1.0, 2.0]
