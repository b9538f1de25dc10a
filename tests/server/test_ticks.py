"""Whoever looks now and then is woken together with the others."""

import asyncio
import random
import subprocess
import sys

import pytest

from server import ticks as server_ticks
from server.ticks import TICK_SECONDS, until_tick


@pytest.mark.parametrize("ticks", [1, 2, 5, 10])
async def test_ticks_lie_on_one_grid_and_none_follows_at_once_on_another(ticks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, now = asyncio.get_running_loop(), 12_345.678_9
    length = ticks * TICK_SECONDS
    for step in range(300):
        with monkeypatch.context() as patch:
            # Woken up to a millisecond early or late, as loops round their clocks.
            patch.setattr(loop, "time", lambda begun=now + (step % 3 - 1) / 1000: begun)
            left = until_tick(ticks)
        now += (step % 3 - 1) / 1000 + left
        assert TICK_SECONDS / 2 < left <= length + TICK_SECONDS / 2
        looked = (now - server_ticks.BEGINS) / length
        assert abs(looked - round(looked)) < 1e-6
        if step:
            assert left == pytest.approx(length, abs=0.0011)


async def test_looks_of_many_processes_are_spread_over_the_time_between_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where their clock is the same, as that of replicas on one machine is."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: 12_345.678_9)
    rng = random.Random(0)
    instants = []
    for _ in range(200):
        monkeypatch.setattr(server_ticks, "BEGINS", rng.uniform(0.0, 60.0))
        instants.append(until_tick(10) % 1.0)
    for tenth in range(10):
        assert 5 <= sum(tenth <= 10 * instant < tenth + 1 for instant in instants) <= 40


def test_each_process_begins_at_a_time_of_its_own() -> None:
    told = {subprocess.check_output([sys.executable, "-c", "from server.ticks import BEGINS; print(BEGINS)"]) for _ in range(2)}
    assert len(told) == 2
