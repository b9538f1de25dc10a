"""The engine's client, on an engine process that has no model: what requests and others who ask are told, whatever becomes of it."""

import asyncio
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from server.engine import client as engine_client
from server.engine.client import EngineClient
from server.engine.supervisor import EngineStatus
from server.engine_settings import EngineOptions
from server.errors import CatalogRefused, RequestRefused
from server.messages import DropCatalog, DropFilter, LoadCatalog, PutFilter, ToEngine
from server.metrics.registry import Metrics
from server.submit import FilterChoice
from server.try_again import EngineUnavailable, QueueFull
from tests.server.engine.fake_engine_client import search, started, submit
from tests.server.engine_process import process_id
from tests.server.fake_ready import READY
from tests.waiting import until
from verification.result import RankedItem

pytestmark = pytest.mark.usefixtures("fake_worker")


async def test_requests_end_as_the_engine_says():
    async with started() as (client, _):
        with pytest.raises(EngineUnavailable, match="still loading"):
            await search(client, submit("fine"))
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        assert (await search(client, submit("fine"))).items == (RankedItem(0, -1.0, 1),)
        with pytest.raises(RequestRefused, match=r"It is refused\."):
            await search(client, submit("refused"))
        with pytest.raises(TimeoutError):
            await search(client, submit("late"))
    with pytest.raises(EngineUnavailable, match="shutting down"):
        await search(client, submit("fine"))


async def test_an_engine_that_was_measured_while_the_machine_stood_still_answers_all_the_same():
    async with started("measured slowly") as (client, _):
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        for _ in range(3):
            assert (await search(client, submit("fine"))).items == (RankedItem(0, -1.0, 1),)


async def test_a_full_house_refuses_and_a_cancelled_wait_makes_room():
    async with started(max_pending=2) as (client, _):
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        waiting = [asyncio.create_task(search(client, submit(name))) for name in ("silence", "silence too")]
        await asyncio.sleep(0.01)
        with pytest.raises(QueueFull, match="2 requests are already waiting or running"):
            await search(client, submit("fine"))
        waiting[1].cancel()
        await asyncio.wait(waiting[1:])
        assert (await search(client, submit("fine"))).request_id == "fine"
        waiting[0].cancel()


async def test_a_request_that_meets_an_engine_which_has_just_died_is_told_so():
    async with started() as (client, _):
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        assert process_id(client.supervisor) is not None
        psutil.Process(process_id(client.supervisor)).kill()
        # The loop is kept from noticing while the socket loses its peer, as it may be by a burst of requests.
        time.sleep(0.2)
        assert client.supervisor.status is EngineStatus.READY
        with pytest.raises(EngineUnavailable, match="died while it worked"):
            await search(client, submit("fine"))


async def test_a_catalog_that_nobody_waits_for_any_more_is_dropped_by_the_engine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_client, "CATALOG_SECONDS", 0.2)
    async with started() as (client, _):
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        told: list[ToEngine] = []
        tell = client.supervisor.tell

        def record(message: ToEngine) -> None:
            told.append(message)
            tell(message)

        monkeypatch.setattr(client.supervisor, "tell", record)
        with pytest.raises(CatalogRefused, match=r"^The engine has not loaded the catalog within 0\.2 s\.$"):
            await client.load_catalog("next", Path("next.catalog"))
        given_up = asyncio.create_task(client.load_catalog("later", Path("later.catalog")))
        # It begins.
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        loads = LoadCatalog("next", "next.catalog"), LoadCatalog("later", "later.catalog")
        assert told == [loads[0], DropCatalog("next"), loads[1], DropCatalog("later")]
        assert (await search(client, submit("fine"))).request_id == "fine"


async def test_an_engine_that_dies_while_it_loads_a_catalog_says_so_to_who_waits_for_it():
    async with started() as (client, _):
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        loading = asyncio.create_task(client.load_catalog("next", Path("next.catalog")))
        await asyncio.sleep(0.05)
        with pytest.raises(EngineUnavailable):
            await search(client, submit("die"))
        with pytest.raises(EngineUnavailable, match="being restarted after it died"):
            await loading


def test_a_filter_that_is_deleted_is_there_for_requests_that_were_let_in_with_it(monkeypatch: pytest.MonkeyPatch):
    """The engine is given them later, once their histories are read."""
    told: list[object] = []
    client = EngineClient(EngineOptions(target="", catalog=""), "v1", Metrics(), max_pending=10)
    monkeypatch.setattr(client.supervisor, "check", lambda: READY)
    monkeypatch.setattr(client.supervisor, "tell", told.append)
    client.engine_ready(READY)
    few, more, gone = PutFilter("", "few", b"\x01"), PutFilter("", "few", b"\x03"), DropFilter("", "few")
    asked = msgspec.structs.replace(submit("asked"), filter=FilterChoice(without=("few",)))
    client.put_filter(few)
    with client.admit(asked, 1), client.admit(submit("another"), 1):
        client.drop_filter(gone)
        # So is an engine that is started meanwhile.
        client.engine_ready(READY)
        assert told == [few, few]
    assert told == [few, few, gone]
    client.put_filter(few)
    with client.admit(asked, 1):
        client.drop_filter(gone)
        client.put_filter(more)
    client.engine_ready(READY)
    assert told[3:] == [few, more, more]
