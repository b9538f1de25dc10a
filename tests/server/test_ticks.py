"""Whoever looks now and then is woken together with the others."""

import asyncio

import pytest

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
        assert abs(now / length - round(now / length)) < 1e-6
        if step:
            assert left == pytest.approx(length, abs=0.0011)
