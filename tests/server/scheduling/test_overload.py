"""A real server under more than it can bear, and when its engine is killed under load: all get an answer, and what was stored stays."""

import asyncio
import time
from pathlib import Path
from statistics import median

import pytest

from benchmarks.load.report import LoadReport
from benchmarks.load.run import LoadRun
from benchmarks.load.settings import LoadSettings
from benchmarks.load.target import Target
from benchmarks.load.users import Users
from tests.server.server_process import ServerProcess

ITEMS = [[f"item-{number}"] for number in range(50)]


async def loaded(server: ServerProcess, settings: LoadSettings) -> LoadReport:
    target, users = Target(str(server.client.base_url).rstrip("/")), Users(50, 1.0, 0)
    await target.seed(users.names, ITEMS)
    report = await LoadRun(target, users, settings).run()
    await target.close()
    return report


def lists_per_second(server: ServerProcess) -> float:
    """How many lists the engine makes one after the other."""
    body = {"history": ["item-1"], "k": 100}
    answers = [server.client.post("/v1/recommendations", json=body).json() for _ in range(30)]
    return 1000 / median(answer["timing_ms"]["engine"] for answer in answers)


def assert_at_rest(server: ServerProcess) -> None:
    for gauge in ("running_requests", "waiting_requests", "kv_slots_used"):
        server.wait_for(lambda name=f"atspeed_{gauge}": server.metric(name) == 0, 5)


@pytest.mark.alone
async def test_under_overload_everybody_is_answered_in_time_or_refused_at_once(model_flags: list[str], tmp_path: Path):
    # One at a time, and wide beams: what a small model can do is soon too little.
    flags = ["--histories", "memory://", "--max-running", "1"]
    with ServerProcess(tmp_path, *model_flags, *flags) as server:
        server.wait_until_ready()
        rate = 2 * lists_per_second(server)
        report = await loaded(server, LoadSettings(rate, 3.0, 2.0, 100, (400, 400), growth=0.1, hang_ups=0.02))
        assert report.refused > 0
        assert report.on_time > 0
        assert report.errors == report.unavailable == 0
        # Somebody else may use this machine too; without that there is nobody late.
        assert report.late + report.timed_out <= 0.05 * (report.on_time + report.refused)
        assert report.events_lost == 0
        assert_at_rest(server)
        assert server.metric("atspeed_refused_requests_total", reason="deadline") >= report.refused
        assert server.metric("atspeed_event_loop_lag_seconds_count") > 20


async def test_when_the_engine_dies_under_load_nobody_hangs_and_it_comes_back(model_flags: list[str], tmp_path: Path):
    flags = ["--histories", f"sqlite:///{tmp_path / 'histories.db'}", "--timeout-ms", "20000"]
    with ServerProcess(tmp_path, *model_flags, *flags) as server:
        server.wait_until_ready()
        load = asyncio.create_task(loaded(server, LoadSettings(90.0, 17.0, 0.0, 10, (20_000, 20_000), growth=0.5)))
        await asyncio.sleep(3.0)
        killed = time.monotonic()
        server.engine.kill()
        while not load.done() and time.monotonic() - killed < 20:
            await asyncio.sleep(0.1)
            ready = await asyncio.to_thread(server.client.get, "/ready")
            if ready.status_code == 200 and time.monotonic() - killed > 0.5:
                break
        assert ready.status_code == 200
        assert time.monotonic() - killed < 20
        report = await load
        assert report.errors == report.timed_out == 0
        assert report.unavailable > 0
        assert report.on_time + report.unavailable + report.refused == report.requests
        assert report.on_time > 500
        assert report.events_lost == 0
        assert server.metric("atspeed_engine_restarts_total") == 1
        assert_at_rest(server)
