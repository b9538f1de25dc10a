"""A real server under more than it can bear, and when its engine is killed under load: all get an answer, and what was stored stays."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from benchmarks.load.report import LoadReport
from benchmarks.load.run import LoadRun
from benchmarks.load.settings import LoadSettings
from benchmarks.load.target import Target
from benchmarks.load.users import Users
from drafting.catalog.catalog import Catalog
from tests.models import save_random_model
from tests.server.forked_server import ForkedServer
from tests.server.server_process import ServerProcess

ITEMS = [[f"item-{number}"] for number in range(50)]


async def loaded(server: ServerProcess, settings: LoadSettings) -> LoadReport:
    target, users = Target(str(server.client.base_url).rstrip("/")), Users(50, 1.0, 0)
    await target.seed(users.names, ITEMS)
    report = await LoadRun(target, users, settings).run()
    await target.close()
    return report


def seconds_per_list(server: ServerProcess) -> float:
    """How long the engine takes for one list, and for the next after it."""
    body = {"history": ["item-1"], "k": 100}
    answers = [server.client.post("/v1/recommendations", json=body).json() for _ in range(30)]
    return median(answer["timing_ms"]["engine"] for answer in answers) / 1000


def assert_at_rest(server: ServerProcess) -> None:
    for gauge in ("running_requests", "waiting_requests", "kv_slots_used"):
        server.wait_for(lambda name=f"atspeed_{gauge}": server.metric(name) == 0)


@pytest.fixture(scope="module")
def slow(catalog: Catalog, catalog_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A model so slow, one list at a time, that what loads it takes little of the machine itself."""
    folder = tmp_path_factory.mktemp("slow")
    target = save_random_model(folder / "model", catalog, hidden=256, layers=8, heads=4, max_items=5)
    flags = ["--target", str(target), "--catalog", str(catalog_file), "--max-running", "1", "--timeout-ms", "20000", "--plan", "auto"]
    with ForkedServer(folder, *flags, "--histories", f"sqlite:///{folder / 'histories.db'}") as server:
        yield server.wait_until_ready()


async def test_when_the_engine_dies_under_load_nobody_hangs_and_it_comes_back(slow: ServerProcess):
    settings = LoadSettings(30.0, 3.0, 0.0, 10, (20_000, 20_000), growth=0.5)
    engine, before = slow.engine, slow.metric("atspeed_items_served_total")
    first = asyncio.create_task(loaded(slow, settings))
    # The engine dies with lists behind it and lists before it, however long the machine took to begin.
    await asyncio.to_thread(slow.wait_for, lambda: slow.metric("atspeed_items_served_total") > before)
    engine.kill()
    reports = [await first]
    # The load goes on for as long as the next engine takes, and then once more.
    ready = False
    while not ready:
        ready = (await asyncio.to_thread(slow.client.get, "/ready")).status_code == 200
        reports.append(await loaded(slow, replace(settings, seconds=1.0)))
    for report in reports:
        assert report.errors == report.timed_out == 0
        assert report.on_time + report.unavailable + report.refused == report.requests
        assert report.events_lost == 0
    died, back = reports[0], reports[-1]
    assert died.on_time > 0
    assert died.unavailable > 0
    assert back.unavailable == 0
    assert back.on_time > 0
    assert slow.metric("atspeed_engine_restarts_total") == 1
    assert_at_rest(slow)


@pytest.mark.alone
async def test_under_overload_everybody_is_answered_in_time_or_refused_at_once(slow: ServerProcess):
    seconds = seconds_per_list(slow)
    # As many lists as fit into a deadline on a quiet machine, whatever this one is.
    deadline_ms = round(20_000 * seconds)
    report = await loaded(slow, LoadSettings(2 / seconds, 3.0, 2.0, 100, (deadline_ms, deadline_ms), growth=0.1, hang_ups=0.02))
    assert report.refused > 0
    assert report.on_time > 0
    assert report.errors == report.unavailable == 0
    # Somebody else may use this machine too; without that there is nobody late, and without admission most are.
    assert report.late + report.timed_out <= 0.25 * (report.on_time + report.refused)
    assert report.events_lost == 0
    assert_at_rest(slow)
    assert slow.metric("atspeed_refused_requests_total", reason="deadline") >= report.refused
    assert slow.metric("atspeed_event_loop_lag_seconds_count") > 20
