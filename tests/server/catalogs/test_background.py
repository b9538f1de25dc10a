"""Work in a background process: its answer comes back, and it ends with those who wait for it."""

import asyncio
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from server.catalogs.background import ProcessLimits, run_in_background
from server.errors import CatalogRefused
from tests.server.catalogs.sleeping_work import Nap
from tests.waiting import has_ended, until, wait_until

MODULE = "tests.server.catalogs.sleeping_work"
WAITER = f"""
import asyncio
from server.catalogs.background import ProcessLimits, run_in_background
from server.errors import CatalogRefused
from tests.server.catalogs.sleeping_work import Nap
asyncio.run(run_in_background({MODULE!r}, Nap(600), Nap, ProcessLimits(4.0, 900), CatalogRefused))
"""
LIMITS = ProcessLimits(4.0, 900)


def sleeping(process: psutil.Process) -> list[psutil.Process]:
    """Its children that have begun their work: from then on their priority is low."""
    return [child for child in process.children() if child.nice() > process.nice()]


async def test_the_answer_comes_back():
    assert await run_in_background(MODULE, Nap(0.0), Nap, LIMITS, CatalogRefused) == Nap(0.0)
    with pytest.raises(CatalogRefused, match="The process that works on it died"):
        await run_in_background("tests.server.catalogs.no_such_work", Nap(0.0), Nap, LIMITS, CatalogRefused)


async def test_packages_of_the_users_own_path_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "work_of_the_user.py").write_text((Path(__file__).parent / "sleeping_work.py").read_text())
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert await run_in_background("work_of_the_user", Nap(0.0), Nap, LIMITS, CatalogRefused) == Nap(0.0)


async def test_cancelling_the_wait_ends_the_work():
    me = psutil.Process()
    wait = asyncio.create_task(run_in_background(MODULE, Nap(600), Nap, LIMITS, CatalogRefused))
    await until(lambda: bool(sleeping(me)))
    work, *_ = sleeping(me)
    wait.cancel()
    await asyncio.wait({wait})
    await until(lambda: has_ended(work))


def test_the_work_ends_with_a_server_that_is_killed():
    server = subprocess.Popen([sys.executable, "-c", WAITER])
    wait_until(lambda: bool(sleeping(psutil.Process(server.pid))))
    (work,) = sleeping(psutil.Process(server.pid))
    server.kill()
    server.wait()
    wait_until(lambda: has_ended(work))
