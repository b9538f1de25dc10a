"""Versions that kill engines, or that no engine can load: left for the last good one, and for no other reason."""

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from server.catalogs import guard
from server.catalogs.deaths import DeathFile, Deaths
from server.catalogs.guard import CatalogGuard
from server.catalogs.proof import prove
from server.catalogs.served import ServedCatalog
from server.control.announcer import Announcer
from server.control.records import Changes, version_removed
from server.engine import supervisor as engine_supervisor
from server.engine.supervisor import EngineStatus
from server.errors import CatalogRefused, FilterRefused, VersionActive
from server.metrics.registry import Metrics
from server.try_again import EngineUnavailable
from tests.server.catalogs.shop import ONE, START, TWO, Shop, deaths_of, moved, open_shop, opened, started
from tests.server.engine_process import process_id
from tests.waiting import until


@pytest.fixture(autouse=True)
def catalog_worker(run_as_engine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    run_as_engine("tests.server.catalogs.catalog_worker")
    # Pauses that would grow from death to death.
    for name in ("FIRST_BACKOFF_SECONDS", "LONGEST_BACKOFF_SECONDS"):
        monkeypatch.setattr(engine_supervisor, name, 0.05)


async def serve(shop: Shop, *names: str) -> None:
    await shop.ready()
    for name in names:
        await shop.add(name, ONE)
        await shop.activate(name)


async def kill(shop: Shop) -> None:
    process = process_id(shop.engine.supervisor)
    assert process is not None
    psutil.Process(process).kill()
    await until(lambda: process_id(shop.engine.supervisor) not in (process, None))


def check_left(shop: Shop, name: str, reason: str, *, by: str = "recovery") -> None:
    assert [(left.version, left.reason) for left in shop.catalogs.left] == [(name, reason)]
    assert shop.catalogs.active.name == shop.named_by_metric == START.version
    assert shop.catalogs.history[-1].by == by
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


async def test_a_version_that_has_served_for_a_while_is_left_when_engines_can_not_start_with_it_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(tmp_path) as shop:
        await serve(shop, "one")
        monkeypatch.setattr(guard, "SOON_SECONDS", 0.0)
        await kill(shop)
        await shop.ready()
        monkeypatch.setattr(guard, "SOON_SECONDS", 60.0)
        # It has proven itself: that it dies while it serves is not the version's fault, however soon.
        for _ in range(3):
            await kill(shop)
            await shop.ready()
        assert (shop.catalogs.active.name, shop.catalogs.left) == ("one", [])
        shop.behave(ONE="crashes")
        await kill(shop)
        await until(lambda: shop.catalogs.active.name != "one")
        check_left(shop, "one", "Two engines died with it.")


async def test_the_silence_of_an_engine_that_hangs_is_no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = await open_shop(tmp_path)
    await shop.add("one", ONE)
    await shop.activate("one", without_engine=True)
    now = time.monotonic()
    for silence, left in ((30.0, False), (61.0, True)):
        watch = CatalogGuard(shop.catalogs, shop.filters, shop.engine.supervisor, Metrics().health, DeathFile(None))
        for _ in range(2):
            with monkeypatch.context() as clock:
                clock.setattr(time, "monotonic", lambda: now + 1000.0)
                watch.engine_ready(shop.catalogs.active.handle)
                clock.setattr(time, "monotonic", lambda: now + 1100.0)
                await watch.engine_ended(shop.catalogs.active.handle, blamed=False, silence=silence)
        assert (shop.catalogs.trying == START.version) is left
    await shop.close()


async def test_service_in_an_engine_that_was_started_with_another_version_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a rule a version is activated while an engine runs, and may be served by that for months."""
    async with opened(tmp_path) as shop:
        before = shop.catalogs.active.handle
        await shop.add("one", ONE)
        await shop.activate("one", without_engine=True)
        watch = CatalogGuard(shop.catalogs, shop.filters, shop.engine.supervisor, Metrics().health, DeathFile(None))
        one, now = shop.catalogs.active.handle, time.monotonic()
        for started_with, seconds in ((before, 61.0), (one, 1.0), (one, 1.0)):
            with monkeypatch.context() as clock:
                clock.setattr(time, "monotonic", partial(float, now))
                watch.engine_ready(one)
                clock.setattr(time, "monotonic", partial(float, now + seconds))
                await watch.engine_ended(started_with, blamed=False, silence=0.0)
        assert (shop.catalogs.trying, shop.catalogs.active.name) == (None, "one")


@pytest.mark.parametrize("comes_up", [True, False])
async def test_filters_and_the_version_on_trial_stay_as_they_are_until_it_is_decided(tmp_path: Path, comes_up: bool) -> None:
    async with started(tmp_path) as shop:
        await serve(shop, "one", "two")
        await shop.filters.put("old", ["item-1"])
        shop.behave(ONE="refuses", START="starts slowly")
        await shop.catalogs.remove("one")
        await kill(shop)
        await until(lambda: shop.catalogs.trying == START.version and process_id(shop.engine.supervisor) is not None)
        for change in (shop.filters.put("new", ["item-2"]), shop.filters.put("old", ["item-2"]), shop.filters.drop("old")):
            with pytest.raises(EngineUnavailable, match="earlier version"):
                await change
        with pytest.raises(VersionActive, match="on trial"):
            await shop.catalogs.remove(START.version)
        if not comes_up:
            shop.behave()
            await kill(shop)
        (tmp_path / "go").touch()
        await shop.ready()
        active = shop.catalogs.active
        assert active.name == (START.version if comes_up else "two")
        assert [each.name for each in shop.filters.all()] == list(active.filters) == ["old"]
        assert active.filters["old"].members().nonzero()[0].tolist() == active.catalog.indices_of(["item-1"]).tolist()
        await shop.filters.put("new", ["item-2"])
        await shop.filters.drop("old")
        assert list(active.filters) == ["new"]


@pytest.mark.parametrize("comes", ["before it is ready", "while it catches up"])
async def test_an_engine_that_starts_while_versions_come_is_not_started_anew(tmp_path: Path, comes: str) -> None:
    """A model takes longer to load than versions may take to come."""
    async with started(tmp_path) as shop:
        await serve(shop, "one")
        await shop.add("two", TWO)
        shop.behave(all="starts slowly", TWO="loads slowly" if comes == "while it catches up" else "fine")
        await kill(shop)
        process = process_id(shop.engine.supervisor)
        await shop.activate("two", without_engine=True)
        (tmp_path / "go").touch()
        if comes == "while it catches up":
            await until((tmp_path / "loading").exists)
            await shop.activate(START.version, without_engine=True)
            (tmp_path / "load").touch()
        await shop.ready()
        assert process_id(shop.engine.supervisor) == process
        served = shop.catalogs.active
        assert served.name == (START.version if comes == "while it catches up" else "two")
        await prove(shop.engine, served.handle, served.catalog)
        # It goes on as any other.
        await shop.activate("one")
        assert (shop.catalogs.active.name, process_id(shop.engine.supervisor)) == ("one", process)


async def test_an_engine_that_can_not_catch_up_is_replaced_by_one_that_can(tmp_path: Path) -> None:
    async with started(tmp_path) as shop:
        await serve(shop, "one")
        await shop.add("two", TWO)
        shop.behave(all="starts slowly", TWO="refuses to be loaded")
        await kill(shop)
        process = process_id(shop.engine.supervisor)
        await shop.activate("two", without_engine=True)
        (tmp_path / "go").touch()
        await until(lambda: process_id(shop.engine.supervisor) not in (process, None))
        await shop.ready()
        assert shop.catalogs.active.name == "two"
        assert not shop.failures


async def test_a_version_that_is_removed_before_it_could_be_tried_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(tmp_path) as shop:
        await serve(shop, "one", "two")
        await shop.add("three", TWO)
        await shop.activate("three")
        prepare = shop.filters.prepare

        async def refuse_and_remove(served: ServedCatalog) -> None:
            if served.name == "two":
                await shop.catalogs.remove("one")
                raise FilterRefused("No.")
            await prepare(served)

        monkeypatch.setattr(shop.filters, "prepare", refuse_and_remove)
        shop.behave(TWO="refuses")
        await kill(shop)
        await until(lambda: shop.catalogs.active.name != "three")
        check_left(shop, "three", "The engine could not load it.")
        assert not shop.failures


async def test_a_version_that_another_replica_removes_while_it_is_made_ready_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as shop:
        for name in ("one", "two"):
            await shop.add(name, ONE)
            await shop.activate(name, without_engine=True)
        prepare = shop.filters.prepare

        async def remove_meanwhile(served: ServedCatalog) -> None:
            await prepare(served)
            if served.name == "one":
                await shop.catalogs.follower.write(version_removed("one"))

        monkeypatch.setattr(shop.filters, "prepare", remove_meanwhile)
        await shop.guard.engine_ended(shop.catalogs.active.handle, blamed=True, silence=0.0)
        assert shop.catalogs.trying == START.version


async def test_a_version_that_another_replica_removes_before_the_engine_has_loaded_it_gives_way_to_the_one_before(tmp_path: Path) -> None:
    """Loading the model takes minutes, perhaps, and the file is gone then."""
    async with opened(tmp_path) as shop:
        for name in ("one", "two"):
            await shop.add(name, ONE)
            await shop.activate(name, without_engine=True)
        await shop.guard.engine_ended(shop.catalogs.active.handle, blamed=True, silence=0.0)
        assert shop.catalogs.trying == "one"
        await shop.catalogs.follower.write(version_removed("one"))
        for tried in (START.version, None):
            await shop.guard.engine_ended("that of the trial", blamed=True, silence=0.0)
            assert shop.catalogs.trying == tried


async def test_with_nothing_to_go_back_to_the_version_stays(tmp_path: Path) -> None:
    async with started(tmp_path) as shop:
        await shop.ready()
        shop.behave(START="refuses")
        await kill(shop)
        await until(lambda: shop.engine.supervisor.status is EngineStatus.RESTARTING)
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


async def test_a_refusal_of_the_engine_does_not_say_where_files_and_models_lie(tmp_path: Path) -> None:
    async with started(tmp_path, {"ONE": "names its model"}) as shop:
        await shop.ready()
        await shop.add("one", ONE)
        with pytest.raises(CatalogRefused, match=r"^The model in behaviours\.json reads Its file badly\.$"):
            await shop.activate("one")


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
        assert shop.engine.supervisor.ready is not None
        assert shop.engine.supervisor.ready.catalog_version == START.version
    async with started(tmp_path) as shop:
        assert shop.catalogs.active.name == START.version


async def test_an_engine_that_comes_up_while_a_rollback_is_written_is_replaced_by_one_that_serves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that fails over may take seconds for the write, and every request would name a catalog that this engine does not have."""
    async with started(tmp_path) as shop:
        await serve(shop, "one")
        shop.behave(all="starts slowly")
        await kill(shop)
        write = shop.catalogs.follower.write

        async def write_late(changes: Changes) -> None:
            (tmp_path / "go").touch()
            await shop.ready()
            await write(changes)

        monkeypatch.setattr(shop.catalogs.follower, "write", write_late)
        await shop.activate(shop.catalogs.previous(), without_engine=True)
        served, supervisor = shop.catalogs.active, shop.engine.supervisor
        assert served.name == START.version
        await until(lambda: supervisor.ready is not None and supervisor.ready.catalog_handle == served.handle)
        await shop.ready()
        await prove(shop.engine, served.handle, served.catalog)
        assert (shop.catalogs.left, shop.failures) == ([], [])


async def test_a_catalog_that_a_start_would_bring_to_others_and_that_no_engine_loads_is_served_by_nobody(tmp_path: Path) -> None:
    later = moved(0)
    async with opened(tmp_path, name="old") as old:
        await old.catalogs.follower.store.announce(Announcer(old.catalogs.follower, lambda: START.version, lambda: None).replica())
        async with opened(tmp_path, name="new", start=later) as new:
            (tmp_path / "behaviours.json").write_text(json.dumps({later.version: "refuses"}))
            assert new.catalogs.active.name == later.version
            new.engine.supervisor.start()
            following = asyncio.create_task(new.catalogs.follower.follow())
            await new.ready()
            replica = new.catalogs.follower.applier
            await until(lambda: replica is not None and not replica.has_more)
            following.cancel()
            await new.engine.supervisor.stop()
            check_left(new, later.version, "The engine could not load it.", by="start")
        async with old.catalogs.changing:
            await old.catalogs.follower.catch_up()
        check_left(old, later.version, "The engine could not load it.", by="start")
        assert {entry.version for entry in old.catalogs.history} == {START.version}
        # It is not tried again until somebody activates it.
        async with opened(tmp_path, name="again", start=later) as again:
            assert (again.catalogs.active.name, again.catalogs.own) == (START.version, None)


async def kill_the_server(folder: Path) -> None:
    """Start a server, and leave behind what one leaves that is killed with its engine before that is ready."""
    async with started(folder, {"all": "starts slowly"}) as shop:
        await until(lambda: process_id(shop.engine.supervisor) is not None)
        left = deaths_of(folder).read_bytes()
    # It has ended by itself here, and taken that away.
    assert not deaths_of(folder).exists()
    deaths_of(folder).write_bytes(left)


async def test_a_version_with_which_the_whole_server_is_killed_twice_is_left(tmp_path: Path) -> None:
    """As in a container that meets its limit of memory, the server of which is started again and again."""
    async with started(tmp_path) as shop:
        await serve(shop, "one")
    for _ in range(2):
        await kill_the_server(tmp_path)
    async with started(tmp_path) as shop:
        await until(lambda: shop.catalogs.active.name != "one")
        await shop.ready()
        check_left(shop, "one", "Two engines died with it, the last one as its server was killed.")


async def test_a_version_stays_if_the_server_is_killed_with_the_other_one_too(tmp_path: Path) -> None:
    async with started(tmp_path) as shop:
        await serve(shop, "one")
    for _ in range(3):
        await kill_the_server(tmp_path)
    async with started(tmp_path) as shop:
        await shop.ready()
        assert (shop.catalogs.active.name, shop.catalogs.left) == ("one", [])


async def test_what_is_known_is_kept_while_engines_start_and_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = tmp_path / "kept", time.monotonic()
    async with opened(tmp_path) as shop:
        watch = CatalogGuard(shop.catalogs, shop.filters, shop.engine.supervisor, Metrics().health, DeathFile(path))
        start = shop.catalogs.active.handle

        def seen(seconds: float, version: str = START.version) -> Deaths:
            with monkeypatch.context() as clock:
                clock.setattr(time, "monotonic", lambda: now + seconds)
                watch.look()
            return DeathFile(path).read(version)

        await watch.engine_starts()
        assert seen(500.0) == Deaths(START.version, 1)
        watch.engine_ready(start)
        watch._ready_since = now
        shop.catalogs.active_since = now
        assert seen(59.0) == Deaths(START.version, 1)
        assert seen(61.0) == Deaths(START.version, proven=True)
        await watch.engine_ended(start, blamed=False, silence=0.0)
        await watch.engine_starts()
        assert seen(70.0) == Deaths(START.version, 1, proven=True)
        watch.engine_ready(start)
        assert seen(71.0) == Deaths(START.version, proven=True)
        # The engine that serves was not started with the version that is served from now on.
        await shop.add("one", ONE)
        await shop.activate("one", without_engine=True)
        assert seen(30.0, ONE.version) == Deaths(ONE.version)
        watch.end()
        seen(200.0)
        assert not path.exists()
