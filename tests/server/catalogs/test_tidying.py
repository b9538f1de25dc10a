"""Which files a replica removes, by what it knows of the versions: as `watch_files` does it while others bring some."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from server.catalogs import tidying
from server.control import Limits, follower
from server.control.memory import MemoryControlStore
from server.control.records import state_created
from server.try_again import FilesUnavailable
from tests.server.catalogs.shop import ONE, opened
from tests.waiting import until

TWO_HOURS = 7200


def make_old(path: Path) -> None:
    os.utime(path, (time.time() - TWO_HOURS,) * 2)


async def test_who_does_not_know_what_others_have_written_removes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process may have stood still, or it follows no more; the others have brought versions meanwhile."""
    control = MemoryControlStore(Limits())
    monkeypatch.setattr(tidying, "TIDY_SECONDS", 0.005)
    async with opened(tmp_path, control, "a") as one, opened(tmp_path, control, "b") as two:
        async with two.catalogs.changing:
            await two.catalogs.follower.decide(lambda: two.catalogs.follower.write(state_created(0.0)))
        await one.add("v1", ONE)
        file, stray = one.catalogs.path("v1"), one.directory / "sha256-stray.catalog"
        stray.touch()
        for path in (file, stray):
            make_old(path)
        with monkeypatch.context() as late:
            late.setattr(follower, "BEHIND_SECONDS", 0.0)
            watching = asyncio.create_task(tidying.watch_files(two.catalogs))
            await asyncio.sleep(0.05)
            assert file.exists()
            assert stray.exists()
            # Before it counts as one that knows what others have written.
            async with two.catalogs.changing:
                await two.catalogs.follower.catch_up()
        async with asyncio.timeout(20):
            while stray.exists():
                async with two.catalogs.changing:
                    await two.catalogs.follower.catch_up()
                await asyncio.sleep(0.005)
        assert file.exists()
        assert not watching.done()
        watching.cancel()


async def test_a_place_that_does_not_answer_is_tidied_up_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures, tidy = [FilesUnavailable("It is away.")] * 2, tidying.tidy

    def fail_at_first(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        tidy(*arguments)

    monkeypatch.setattr(tidying, "tidy", fail_at_first)
    monkeypatch.setattr(tidying, "TIDY_SECONDS", 0.005)
    # This replica is as good as one that follows.
    monkeypatch.setattr(follower, "BEHIND_SECONDS", float("inf"))
    async with opened(tmp_path, MemoryControlStore(Limits())) as shop:
        async with shop.catalogs.changing:
            await shop.catalogs.follower.decide(lambda: shop.catalogs.follower.write(state_created(0.0)))
        stray = shop.directory / "sha256-stray.catalog"
        stray.touch()
        make_old(stray)
        watching = asyncio.create_task(tidying.watch_files(shop.catalogs))
        await until(lambda: not stray.exists())
        watching.cancel()
    assert [message for message in caplog.messages if "tidied" in message] == ["the files of versions can't be tidied up: It is away."] * 2
