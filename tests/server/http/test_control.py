"""`/v1/control` over HTTP: how a server stands, its backup, and what is restored."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from starlette.requests import ClientDisconnect

from server.catalogs.start import BY_START
from server.control import Write
from server.engine.supervisor import EngineStatus
from server.http import app
from server.http.app import build_api
from server.try_again import ControlFull, FilesUnavailable
from tests.server.http.test_app import Bench
from tests.server.server_process import assert_problem

ENDED = "This server does not do what the others do: it no longer follows them, for a fault that its log tells, and must be restarted."
MISSING = "This server does not do what the others do: it has not read the control store yet."
UNFETCHED = (
    "This server does not do what the others do: It can't begin yet: The file of version 'films' can't be fetched: the store is away."
)
DAMAGED = "The backup is damaged or cut off: nothing was restored."
NONE = "This is no backup of a control store, or one of another release: such a file is made by atspeed control backup."


def failed(bench: Bench) -> float | None:
    return bench.metrics.registry.get_sample_value("atspeed_begin_failed")


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_server_shows_itself_and_the_others(bench: Bench):
    follower = bench.services.catalogs.follower
    async with follower.changing:
        await follower.catch_up()
    bench.services.overview.look()
    other = replace(bench.services.announcer.replica(), name="zz", ready=False, problem="It has another model.", version="films")
    await follower.store.announce(other)
    told = (await bench.client.get("/v1/control")).json()
    assert (told["replica"], told["store"], told["away_since"]) == (follower.name, "ok", None)
    assert (told["generation"], told["revision"]) == (follower.read_position.generation, follower.read_position.revision)
    own, shown = told["replicas"]
    assert (own["name"], own["revision"], own["behind_seconds"]) == (follower.name, follower.read_position.revision, 0)
    assert (shown["name"], shown["ready"], shown["problem"], shown["version"]) == ("zz", False, "It has another model.", "films")
    follower.away_since = 1234.5
    told = (await bench.client.get("/v1/control")).json()
    assert (told["store"], told["away_since"]) == ("away", 1234.5)
    follower.away_since, follower.lost = None, True
    assert (await bench.client.get("/v1/control")).json()["store"] == "lost"


async def test_a_backup_is_restored_and_may_be_larger_than_other_bodies(bench: Bench):
    follower = bench.services.catalogs.follower
    assert_problem(await bench.client.get("/v1/control/backup"), 503, MISSING)
    async with follower.changing:
        await follower.catch_up()
        await follower.write({"later/big": bytes(3_000_000)})
    file = (await bench.client.get("/v1/control/backup")).content
    assert len(file) > 3_000_000
    answer = await bench.client.put("/v1/control/backup", content=file)
    restored = answer.json()
    assert restored["revision"] == int(answer.headers["x-control-revision"]) == follower.read_position.revision + 1
    state = await follower.store.state()
    assert state is not None
    assert (state.position.generation, state.values) == (restored["generation"], follower.values)
    assert_problem(await bench.client.put("/v1/control/backup", content=file[:-1]), 422, DAMAGED)
    assert_problem(await bench.client.put("/v1/control/backup", content=b""), 422, NONE)


async def test_a_backup_whose_client_is_gone_is_no_fault_of_the_server(bench: Bench):
    async def cut_off() -> AsyncIterator[bytes]:
        yield b"atsp"
        raise ClientDisconnect

    assert_problem(await bench.client.put("/v1/control/backup", content=cut_off()), 400, "The upload ended after 4 bytes.")


@pytest.mark.parametrize("early", [True, False])
async def test_a_server_that_no_longer_follows_for_a_fault_asks_to_be_restarted(bench: Bench, monkeypatch: pytest.MonkeyPatch, early: bool):
    """As it begins, or later; only a restart helps, so it is not alive for whoever can restart it."""

    async def fail() -> None:
        raise RuntimeError

    async def begin() -> None:
        """Find nothing."""

    monkeypatch.setattr(bench.services.replica, "begin", fail if early else begin)
    monkeypatch.setattr(bench.services.catalogs.follower, "follow", fail)
    monkeypatch.setattr(bench.engine.supervisor, "start", lambda: None)
    api = build_api(bench.services)
    assert (await bench.client.get("/health")).status_code == 200
    async with api.router.lifespan_context(api), asyncio.timeout(20):
        while (health := await bench.client.get("/health")).is_success:
            await asyncio.sleep(0)
        assert_problem(health, 503, ENDED)
        assert_problem(await bench.client.get("/ready"), 503, ENDED)
        assert not bench.services.announcer.replica().ready


async def test_a_server_is_ready_once_all_are_told_of_the_catalog_that_it_brings(bench: Bench):
    catalogs = bench.services.catalogs
    assert (await bench.client.get("/ready")).status_code == 200
    catalogs.decide_alone(catalogs.active, BY_START, None, after_engine=True)
    sentence = "The catalog that this server is started with is about to be served by all."
    assert_problem(await bench.client.get("/ready"), 503, sentence)
    async with catalogs.changing:
        await catalogs.follower.catch_up()
    assert (await bench.client.get("/ready")).status_code == 200


async def test_a_server_that_can_not_note_its_start_is_ready_with_what_there_is(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """As of a Redis that is out of memory, or whose replicas are away."""
    supervisor, started = bench.engine.supervisor, asyncio.Event()

    def start() -> None:
        supervisor.status = EngineStatus.READY
        started.set()

    async def refuse(*_: object) -> Write:
        raise ControlFull("It is full.")

    monkeypatch.setattr(bench.services.catalogs.follower.store, "write", refuse)
    monkeypatch.setattr(supervisor, "start", start)
    api = build_api(bench.services)
    async with api.router.lifespan_context(api), asyncio.timeout(20):
        await started.wait()
        assert (await bench.client.get("/ready")).status_code == 200
        assert (await bench.recommend()).status_code == 200
        assert (await bench.client.put("/v1/catalog/filters/few", json={"items": ["item-1"]})).status_code == 507


async def test_a_server_that_can_not_begin_yet_says_so_until_it_can(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    away, started = True, asyncio.Event()

    async def begin() -> None:
        if away:
            raise FilesUnavailable("The file of version 'films' can't be fetched: the store is away.")

    monkeypatch.setattr(app, "RETRY_SECONDS", 0.005)
    monkeypatch.setattr(bench.services.replica, "begin", begin)
    monkeypatch.setattr(bench.engine.supervisor, "start", started.set)
    api = build_api(bench.services)
    assert failed(bench) == 0
    async with api.router.lifespan_context(api), asyncio.timeout(20):
        while not failed(bench):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert failed(bench) == 1
        assert_problem(await bench.client.get("/ready"), 503, UNFETCHED)
        assert (await bench.client.get("/health")).status_code == 200
        assert not started.is_set()
        away = False
        await started.wait()
        assert failed(bench) == 0
