"""Revisions over HTTP: what an answer tells, what a request may ask for, and writes that wait for all replicas."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NoReturn

import httpx
import pytest

from server.control import ControlStore, open_control_store
from server.control import announcer as announcer_module
from server.histories import open_history_store
from server.http.app import build_app
from server.metrics.registry import Metrics
from server.services import Services
from server.settings import Settings
from server.try_again import ControlUnavailable
from tests.server.http.test_app import CATALOG, StubEngine
from tests.server.server_process import assert_problem
from tests.server.stub_catalogs import stub_catalogs

FEW = {"items": ["item-1", "item-2"]}


class Replica:
    """An app that follows a control store, as long as it is told to."""

    def __init__(self, control: ControlStore, name: str, timeout_ms: int = 20_000) -> None:
        settings = Settings(target=Path("models/stub"), catalog=Path("catalog.jsonl"), engine="transformers", timeout_ms=timeout_ms)
        metrics = Metrics()
        engine = StubEngine(settings, metrics)
        catalogs = stub_catalogs(CATALOG, engine, control, name)
        self.services = Services(settings, catalogs, engine, open_history_store("memory://"), metrics)
        transport = httpx.ASGITransport(build_app(self.services), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        follower = self.services.catalogs.follower
        tasks = [asyncio.create_task(follower.follow()), asyncio.create_task(self.services.announcer.announce())]
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Replica, Replica]]:
    control = open_control_store("memory://")
    one, two = Replica(control, "one"), Replica(control, "two")
    async with AsyncExitStack() as stack:
        for replica in (one, two):
            await stack.enter_async_context(replica.following())
        yield one, two


def revision(response: httpx.Response) -> int:
    return int(response.headers["x-control-revision"])


async def test_a_server_that_can_not_know_what_others_write_says_so(pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch):
    one, _ = pair
    for seconds, told in ((0.99, None), (2.345, "2.35")):
        monkeypatch.setattr(one.services.catalogs.follower, "behind_seconds", lambda seconds=seconds: seconds)
        assert (await one.client.get("/v1/catalog")).headers.get("x-control-behind") == told


async def test_a_client_that_names_the_revision_of_its_write_meets_it_on_every_replica(pair: tuple[Replica, Replica]):
    one, two = pair
    for number in range(20):
        put = await one.client.put(f"/v1/catalog/filters/f{number}", json=FEW)
        assert put.status_code == 200
        got = await two.client.get(f"/v1/catalog/filters/f{number}", headers={"X-Min-Revision": put.headers["x-control-revision"]})
        assert (got.status_code, got.json()["items"]) == (200, 2)
        assert revision(got) >= revision(put) > number
    dropped = await two.client.delete("/v1/catalog/filters/f0")
    assert revision(dropped) == revision(put) + 1
    listed = await one.client.get("/v1/catalog/filters", headers={"X-Min-Revision": str(revision(dropped))})
    assert len(listed.json()["filters"]) == 19


async def test_a_revision_that_is_not_reached_in_time_is_503_and_what_is_none_is_422():
    one = Replica(open_control_store("memory://"), "one", timeout_ms=50)
    refused = await one.client.get("/v1/catalog", headers={"X-Min-Revision": "1000000"})
    assert_problem(refused, 503, f"This server has applied revision {revision(refused)}, and not yet 1000000 (X-Min-Revision).")
    assert refused.headers["retry-after"] == "1"
    for wrong in ("x", "-1", "1" * 30, "٣".encode()):
        answer = await one.client.get("/v1/catalog", headers={"X-Min-Revision": wrong})
        assert_problem(answer, 422, "The header X-Min-Revision must be a revision, as X-Control-Revision tells it.")


async def test_a_write_that_waits_for_all_is_everywhere_when_it_is_answered(pair: tuple[Replica, Replica]):
    one, two = pair
    await one.services.catalogs.follower.store.announce(two.services.announcer.replica())
    for number in range(10):
        assert (await one.client.put(f"/v1/catalog/filters/f{number}?wait=all", json=FEW)).status_code == 200
        assert (await two.client.get(f"/v1/catalog/filters/f{number}")).status_code == 200
    assert (await one.client.put("/v1/catalog/filters/f?wait=some", json=FEW)).status_code == 422


async def test_who_lacks_a_change_in_time_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(announcer_module, "EVERYWHERE_SECONDS", 0.05)
    control = open_control_store("memory://")
    one, two = Replica(control, "one"), Replica(control, "two")
    await control.announce(two.services.announcer.replica())
    answer = await one.client.put("/v1/catalog/filters/few?wait=all", json=FEW)
    assert_problem(answer, 503, f"The change is stored, as revision {revision(answer)}, but not everywhere in time: two (it is behind).")
    assert (await one.client.get("/v1/catalog/filters/few")).status_code == 200


async def test_a_change_is_stored_where_the_store_does_not_tell_who_lives(monkeypatch: pytest.MonkeyPatch):
    async def away() -> NoReturn:
        raise ControlUnavailable("It is away.")

    control = open_control_store("memory://")
    one = Replica(control, "one")
    assert (await one.client.put("/v1/catalog/filters/few", json=FEW)).status_code == 200
    monkeypatch.setattr(announcer_module, "EVERYWHERE_SECONDS", 0.05)
    monkeypatch.setattr(control, "replicas", away)
    answer = await one.client.put("/v1/catalog/filters/more?wait=all", json=FEW)
    sentence = f"The change is stored, as revision {revision(answer)}, but not everywhere in time: the control store does not tell who."
    assert_problem(answer, 503, sentence)
    assert (await one.client.get("/v1/catalog/filters/more")).status_code == 200
