"""Versions that kill engines, or that no engine can load: left for the last good one, and for no other reason."""

from pathlib import Path

import psutil
import pytest

from server.catalogs import guard
from server.engine import client as engine_client
from server.engine.client import EngineStatus
from server.errors import CatalogRefused, EngineUnavailable
from tests.server.catalogs.shop import ONE, START, Shop, started, until


@pytest.fixture(autouse=True)
def catalog_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_client, "WORKER_MODULE", "tests.server.catalogs.catalog_worker")
    monkeypatch.setattr(engine_client, "FIRST_BACKOFF_SECONDS", 0.05)


async def serve(shop: Shop, *names: str) -> None:
    await shop.ready()
    for name in names:
        await shop.add(name, ONE)
        await shop.activate(name)


async def kill(shop: Shop) -> None:
    process = shop.engine.process_id
    assert process is not None
    psutil.Process(process).kill()
    await until(lambda: shop.engine.process_id not in (process, None))


def check_left(shop: Shop, name: str, reason: str) -> None:
    assert [(left.version, left.reason) for left in shop.catalogs.left] == [(name, reason)]
    assert shop.catalogs.active.name == shop.named_by_metric == START.version
    assert shop.catalogs.history[-1].by == "recovery"
    assert shop.metrics.registry.get_sample_value("atspeed_catalogs_left") == 1


async def test_a_version_with_which_two_engines_die_is_left_and_stays_left_after_a_restart(tmp_path: Path) -> None:
    async with started(tmp_path) as shop:
        await serve(shop, "one")
        shop.behave(ONE="crashes")
        await kill(shop)
        await until(lambda: shop.catalogs.active.name != "one")
        await shop.ready()
        check_left(shop, "one", "Two engines died with it.")
        assert not shop.failures
    async with started(tmp_path) as shop:
        await shop.ready()
        assert shop.catalogs.active.name == START.version
        assert [left.version for left in shop.catalogs.left] == ["one"]
        await shop.activate("one")
        assert not shop.catalogs.left


async def test_a_version_that_an_engine_can_not_load_is_left_at_once(tmp_path: Path) -> None:
    async with started(tmp_path) as shop:
        await serve(shop, "one")
        shop.behave(ONE="refuses")
        await kill(shop)
        await until(lambda: shop.catalogs.active.name != "one")
        check_left(shop, "one", "The engine could not load it.")


async def test_a_server_that_starts_with_such_a_version_comes_up_with_the_one_before(tmp_path: Path) -> None:
    async with started(tmp_path) as shop:
        await serve(shop, "one")
    for behaviour, reason in (("refuses", "The engine could not load it."), ("crashes", "Two engines died with it.")):
        async with started(tmp_path, {"ONE": behaviour}) as shop:
            assert shop.catalogs.active.name == "one"
            await shop.ready()
            check_left(shop, "one", reason)
            assert not shop.failures
            shop.behave()
            await shop.activate("one")


async def test_engines_that_die_whatever_they_load_are_not_the_versions_fault(tmp_path: Path) -> None:
    async with started(tmp_path) as shop:
        await serve(shop, "one")
        shop.behave(all="crashes")
        await kill(shop)
        await until(lambda: shop.metrics.registry.get_sample_value("atspeed_engine_restarts_total") >= 4)
        shop.behave()
        await shop.ready()
        assert (shop.catalogs.active.name, shop.catalogs.left) == ("one", [])
    async with started(tmp_path, {"all": "crashes"}) as shop:
        await until(lambda: bool(shop.failures))
        assert (shop.catalogs.active.name, shop.catalogs.left) == ("one", [])


async def test_a_version_that_has_served_for_a_while_is_not_left_for_a_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SOON_SECONDS", 0.0)
    async with started(tmp_path) as shop:
        await serve(shop, "one")
        for _ in range(3):
            await kill(shop)
            await shop.ready()
        assert (shop.catalogs.active.name, shop.catalogs.left) == ("one", [])


async def test_with_nothing_to_go_back_to_the_version_stays(tmp_path: Path) -> None:
    async with started(tmp_path) as shop:
        await shop.ready()
        shop.behave(START="refuses")
        await kill(shop)
        await until(lambda: shop.engine.status is EngineStatus.RESTARTING)
        shop.behave()
        await shop.ready()
        assert (shop.catalogs.active.name, shop.catalogs.left) == (START.version, [])


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [("dies when loaded", EngineUnavailable), ("dies when asked", EngineUnavailable), ("invents", CatalogRefused)],
)
async def test_a_version_that_is_not_proven_is_never_served(tmp_path: Path, behaviour: str, error: type[Exception]) -> None:
    async with started(tmp_path, {"ONE": behaviour}) as shop:
        await shop.ready()
        await shop.add("one", ONE)
        before = shop.catalogs.history[:]
        with pytest.raises(error):
            await shop.activate("one")
        await shop.ready()
        assert shop.catalogs.active.name == shop.named_by_metric == START.version
        assert shop.catalogs.history == before


async def test_rolling_back_needs_no_engine(tmp_path: Path) -> None:
    async with started(tmp_path) as shop:
        await serve(shop, "one")
        shop.behave(all="crashes")
        await kill(shop)
        await shop.activate(shop.catalogs.previous(), without_engine=True)
        assert shop.catalogs.active.name == shop.named_by_metric == START.version
        with pytest.raises(EngineUnavailable):
            await shop.activate("one")
        shop.behave()
        await shop.ready()
        assert shop.engine.ready is not None
        assert shop.engine.ready.catalog_version == START.version
    async with started(tmp_path) as shop:
        assert shop.catalogs.active.name == START.version
