"""With which version a server begins, from what servers before it have noted in the control store."""

from pathlib import Path

import pytest

from drafting.catalog.artefact import save_artefact
from server.catalogs.files import VersionFiles
from server.catalogs.filters import NamedFilters
from server.catalogs.prompts import CatalogPrompts
from server.catalogs.replica import CatalogReplica
from server.catalogs.served import ServedCatalog
from server.catalogs.store import CatalogStore
from server.catalogs.switch import CatalogSwitch
from server.control import ControlStore, open_control_store
from server.control.follower import Follower
from server.control.records import Activation, Record, VersionRecord, state_created, version_added
from server.engine.client import EngineClient
from server.engine_settings import EngineOptions
from server.metrics.registry import Metrics
from tests.models import random_catalog

START, OTHER, NEWER = (random_catalog(items=20, seed=seed) for seed in (1, 2, 3))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    save_artefact(OTHER, tmp_path / "v2.catalog")
    return tmp_path


async def begin(directory: Path, control: ControlStore | None = None, name: str = "one") -> CatalogStore:
    metrics = Metrics()
    engine = EngineClient(EngineOptions(target="", catalog=""), "", metrics, max_pending=1)
    follower = Follower(control or open_control_store("memory://"), name)
    start = ServedCatalog(START.version, "", Path("start.jsonl"), START)
    catalogs = CatalogStore(start, engine, VersionFiles(directory), follower)
    filters = NamedFilters(catalogs, engine)
    prompts = CatalogPrompts(catalogs, engine.supervisor)
    switch = CatalogSwitch(catalogs, filters, prompts, engine.supervisor, metrics.health)
    follower.applier = replica = CatalogReplica(catalogs, filters, switch)
    await replica.begin()
    return catalogs


async def noted(*entries: tuple[str, str], at: float = 1.0) -> ControlStore:
    """A store in which servers before have noted the file of v2, and activations: versions, and who activated them, `at` a time."""
    values, record = state_created(1.0) | version_added("v2", VersionRecord("v2.catalog", 1.0)), Record()
    for version, by in entries:
        changes = record.activated(Activation(version, by, at)) | (record.began_with(version, at) if by == "start" else {})
        record.take({key: value for key, value in changes.items() if value is not None})
        values |= changes
    control = open_control_store("memory://")
    await control.create({key: value for key, value in values.items() if value is not None})
    return control


async def begun(directory: Path, control: ControlStore | None = None) -> tuple[str, str]:
    catalogs = await begin(directory, control)
    return catalogs.active.name, catalogs.history[-1].by


async def test_a_server_begins_with_its_catalog_and_goes_on_with_what_was_activated(directory: Path) -> None:
    assert await begun(directory) == (START.version, "start")
    assert await begun(directory, await noted((START.version, "start"), ("v2", "somebody"))) == ("v2", "restart")


async def test_another_catalog_to_start_with_wins(directory: Path) -> None:
    assert await begun(directory, await noted((NEWER.version, "start"), ("v2", "somebody"))) == (START.version, "start")


async def test_a_server_goes_on_with_what_was_activated_though_a_clock_was_ahead_when_another_catalog_began(directory: Path) -> None:
    control = await noted((NEWER.version, "start"), at=1e11)
    first = await begin(directory, control)
    assert first.active.name == START.version
    async with first.changing:
        await first.follower.catch_up()
        await first.follower.write(first.record.activated(Activation("v2", "somebody", 2.0)))
    assert await begun(directory, control) == ("v2", "restart")


async def test_a_version_that_is_gone_is_left_for_the_one_before_and_that_is_said(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalogs = await begin(directory, await noted((START.version, "start"), ("removed", "somebody"), ("v3", "somebody")))
    assert (catalogs.active.name, catalogs.history[-1].by) == (START.version, "recovery")
    assert [left.version for left in catalogs.left] == ["v3"]
    assert [record.getMessage() for record in caplog.records] == ["the version v3 can't be served any more: its file is gone"]
    # It can't be removed any more: the next activation ends it.
    async with catalogs.changing:
        await catalogs.follower.catch_up()
        await catalogs.follower.write(catalogs.record.activated(Activation("v2", "somebody", 2.0)))
    assert catalogs.left == []
    assert await begun(directory, await noted((START.version, "start"), ("v2", "somebody"), ("v3", "somebody"))) == ("v2", "recovery")


async def test_the_history_outlives_the_server(directory: Path) -> None:
    control = open_control_store("memory://")
    first = await begin(directory, control)
    assert first.versions() == ["v2", START.version]
    second = await begin(directory, control)
    assert [(entry.version, entry.by) for entry in second.history] == [(START.version, "start")] * 2
