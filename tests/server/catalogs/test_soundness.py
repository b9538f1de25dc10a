"""When `/ready` says that the model makes no lists, on an engine process whose scores are not finite after the items that a file names."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.catalogs import soundness
from server.catalogs.soundness import MANY
from server.engine.client import EngineClient
from server.engine.supervisor import EngineStatus
from server.engine_settings import EngineOptions
from server.errors import ServerError
from server.histories import open_history_store
from server.http.app import build_api
from server.metrics.registry import Metrics
from server.services import Services
from server.settings import Settings
from tests.models import random_catalog
from tests.server.server_process import assert_problem
from tests.server.stub_catalogs import stub_catalogs
from tests.waiting import until
from verification.result import BeamResult

CATALOG = random_catalog(items=20)
SENTENCE = "The model's scores are not finite (NaN or infinite), so it makes no lists."


class Bench:
    def __init__(self, engine: EngineClient, client: httpx.AsyncClient, denied: Path) -> None:
        self.engine, self.client, self.denied = engine, client, denied

    async def ask(self, item: int, times: int = 1) -> set[int]:
        """The statuses of requests after an item, one after the other."""
        body = {"history": [f"item-{item}"], "k": 1}
        return {(await self.client.post("/v1/recommendations", json=body)).status_code for _ in range(times)}

    async def ready(self) -> httpx.Response:
        return await self.client.get("/ready")

    async def until_ready(self, ready: bool) -> None:
        async with asyncio.timeout(30):
            while (await self.ready()).is_success != ready:
                await asyncio.sleep(0.01)


@pytest.fixture
async def bench(tmp_path: Path, run_as_engine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    run_as_engine("tests.server.fake_worker")
    monkeypatch.setattr(soundness, "LOOK_TICKS", 1)
    denied = tmp_path / "denied"
    denied.write_text("")
    settings, metrics = Settings(target=tmp_path, catalog=tmp_path, engine="transformers"), Metrics()
    engine = EngineClient(EngineOptions(target=f"denies:{denied}", catalog=""), "v1", metrics, max_pending=10)
    api = build_api(Services(settings, stub_catalogs(CATALOG, engine), engine, open_history_store("memory://"), metrics))
    async with (
        api.router.lifespan_context(api),
        httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://localhost") as client,
    ):
        bench = Bench(engine, client, denied)
        await bench.until_ready(True)
        yield bench


async def test_one_user_whose_lists_can_not_be_made_takes_the_server_from_nobody(bench: Bench):
    bench.denied.write_text("1")
    for _ in range(3):
        assert await bench.ask(1, MANY) == {500}
        assert (await bench.ready()).status_code == 200
        async with asyncio.timeout(30):
            while bench.engine.supervisor.heartbeat.not_finite:
                assert (await bench.ready()).status_code == 200
                await asyncio.sleep(0.005)


async def test_a_model_that_makes_no_lists_is_not_ready_until_it_makes_one(bench: Bench):
    bench.denied.write_text("0 1 2")
    assert await bench.ask(1, MANY - 1) == {500}
    await asyncio.sleep(0.1)
    assert (await bench.ready()).status_code == 200
    assert await bench.ask(2) == {500}
    await bench.until_ready(False)
    assert_problem(await bench.ready(), 503, SENTENCE)
    # Its process lives, and who asks all the same is told what the model did.
    assert (await bench.client.get("/health")).status_code == 200
    assert await bench.ask(1) == {500}
    # Nobody asks for lists any more, and it recovers.
    bench.denied.write_text("")
    await bench.until_ready(True)


async def test_any_list_ends_the_doubt(bench: Bench):
    bench.denied.write_text("0 1")
    assert await bench.ask(1, MANY) == {500}
    await bench.until_ready(False)
    assert await bench.ask(2) == {200}
    assert (await bench.ready()).status_code == 200


async def test_another_engine_is_not_blamed_for_the_last(bench: Bench):
    bench.denied.write_text("0")
    assert await bench.ask(0, MANY) == {500}
    await bench.until_ready(False)
    process = bench.engine.supervisor._process
    assert process is not None
    process.kill()
    await until(lambda: bench.engine.supervisor.status is not EngineStatus.READY)
    await bench.until_ready(True)
    assert bench.engine.supervisor.heartbeat.not_finite == 0


async def test_what_a_trial_meets_does_not_end_the_watch(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    tried, ask = [], soundness.ask

    async def refused_at_first(*arguments: Any) -> BeamResult:
        tried.append(arguments)
        if len(tried) == 1:
            raise ServerError("This error is none of the engine's.")
        return await ask(*arguments)

    monkeypatch.setattr(soundness, "ask", refused_at_first)
    bench.denied.write_text("0 1")
    assert await bench.ask(1, MANY) == {500}
    await bench.until_ready(False)
    assert len(tried) > 1


async def test_a_watch_that_ends_is_in_the_log(bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    async def broken(*_: Any) -> BeamResult:
        raise AssertionError("a mistake in the code")

    monkeypatch.setattr(soundness, "ask", broken)
    bench.denied.write_text("0 1")
    assert await bench.ask(1, MANY) == {500}
    await until(lambda: "the task 'soundness' has failed, and no longer watches" in caplog.messages)
