"""The services of a server around a directory of versions, on an engine process without a model."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from drafting.catalog.artefact import save_artefact
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from server.catalogs import store
from server.catalogs.deaths import DeathFile
from server.catalogs.files import VersionFiles
from server.catalogs.filters import NamedFilters
from server.catalogs.guard import CatalogGuard
from server.catalogs.prompts import CatalogPrompts
from server.catalogs.replica import CatalogReplica
from server.catalogs.served import ServedCatalog
from server.catalogs.store import CatalogStore
from server.catalogs.switch import CatalogSwitch
from server.control import ControlStore, open_control_store
from server.control.follower import Follower
from server.engine.client import EngineClient
from server.engine.supervisor import EngineStatus
from server.engine_settings import EngineOptions
from server.metrics.registry import Metrics
from tests.waiting import until

if TYPE_CHECKING:
    import pytest


def small_catalog(seed: int) -> Catalog:
    """A catalog made without the model libraries, which take seconds to import."""
    rows = np.random.default_rng(seed).integers(5, size=(20, 3)).tolist()
    return catalog_of({f"item-{i}": [f"<{level}_{code}>" for level, code in zip("abc", row, strict=True)] for i, row in enumerate(rows)})


START, ONE, TWO = (small_catalog(seed) for seed in (1, 2, 3))


def moved(count: int) -> Catalog:
    """The catalog of the start with an item more, and with other identifiers for so many of its items."""
    rows = {START.item_ids[index]: (ONE if index < count else START).identifier(index) for index in range(len(START))}
    return catalog_of(rows | {"one more": START.identifier(0)})


@dataclass
class Shop:
    """What a test may ask."""

    directory: Path
    engine: EngineClient
    catalogs: CatalogStore
    guard: CatalogGuard
    switch: CatalogSwitch
    filters: NamedFilters
    metrics: Metrics
    failures: list[str]

    async def add(self, name: str, catalog: Catalog) -> None:
        unfinished = self.catalogs.files.unfinished()
        try:
            await self.catalogs.add(name, unfinished, save_artefact(catalog, unfinished))
        finally:
            self.catalogs.files.discard(unfinished)

    async def activate(self, name: str, *, without_engine: bool = False) -> None:
        async with self.catalogs.changing:
            await self.switch.serve(name, "a test", without_engine=without_engine)

    async def close(self) -> None:
        await self.catalogs.follower.end()
        await self.catalogs.follower.store.close()
        self.catalogs.files.close()

    async def ready(self) -> None:
        await until(lambda: self.engine.supervisor.status is EngineStatus.READY)

    def behave(self, **behaviours: str) -> None:
        """By name of START, ONE, TWO or all."""
        names = {"START": START.version, "ONE": ONE.version, "TWO": TWO.version, "all": "all"}
        (self.directory.parent / "behaviours.json").write_text(json.dumps({names[name]: what for name, what in behaviours.items()}))

    @property
    def named_by_metric(self) -> str:
        """The version that the metrics say is served."""
        (metric,) = self.metrics.health.catalog_info.collect()
        (sample,) = metric.samples
        return sample.labels["version"]


def take_any_catalog(monkeypatch: "pytest.MonkeyPatch") -> None:
    """Have engines take every catalog, which nobody proves: what is tested lies on this side of them."""

    async def take(*_: object) -> None:
        pass

    monkeypatch.setattr(EngineClient, "load_catalog", take)
    monkeypatch.setattr(store, "prove", take)


def put_into(image: Path, catalog: Catalog) -> None:
    """Make a catalog what is found at a path from now on."""
    image.unlink(missing_ok=True)
    save_artefact(catalog, image)


def deaths_of(folder: Path, name: str = "shop") -> Path:
    """Where a shop keeps what it knows of engines that died."""
    return folder / f"{name}.deaths"


async def open_shop(
    folder: Path,
    control: ControlStore | None = None,
    name: str = "shop",
    start: Catalog = START,
    image: Path | None = None,
    *,
    is_private: bool = False,
    is_shared: bool = False,
) -> Shop:
    """The services as a server makes them when it starts; what it serves is not proven yet, for nothing is started.

    Args:
        control: by default the file beside the versions, as a server has it.
        name: of the replica.
        start: the catalog that it is started with.
        image: the file that it is started with, which gets that catalog; by default one that no other catalog has.
        is_private: True for a server whose files the others can't read.
        is_shared: True for one that publishes its own where those of other machines find it.
    """
    directory, start_file = folder / "catalogs", image or folder / f"{start.version}.catalog"
    if image is not None:
        put_into(image, start)
    directory.mkdir(exist_ok=True)
    if not start_file.exists():
        save_artefact(start, start_file)
    failures: list[str] = []
    options = EngineOptions(target=folder / "behaviours.json", catalog=start_file)
    metrics = Metrics()
    engine = EngineClient(options, start.version, metrics, max_pending=10, on_failure=failures.append)
    follower = Follower(control or open_control_store(f"sqlite:///{directory / 'control.db'}"), name)
    served, files = ServedCatalog(start.version, "", start_file, start), VersionFiles(directory, is_shared=is_shared)
    catalogs = CatalogStore(served, engine, files, follower, private_files=is_private)
    filters = NamedFilters(catalogs, engine)
    prompts = CatalogPrompts(catalogs, engine.supervisor)
    switch = CatalogSwitch(catalogs, filters, prompts, engine.supervisor, metrics.health)
    follower.applier = replica = CatalogReplica(catalogs, filters, switch)
    await replica.begin()
    deaths = DeathFile(deaths_of(folder, name))
    engine.supervisor.watch = guard = CatalogGuard(catalogs, filters, engine.supervisor, metrics.health, deaths)
    shop = Shop(directory, engine, catalogs, guard, switch, filters, metrics, failures)
    shop.behave()
    return shop


@asynccontextmanager
async def opened(
    folder: Path,
    control: ControlStore | None = None,
    name: str = "shop",
    start: Catalog = START,
    image: Path | None = None,
    *,
    is_private: bool = False,
    is_shared: bool = False,
) -> AsyncIterator[Shop]:
    """A shop of which nothing is started."""
    shop = await open_shop(folder, control, name, start, image, is_private=is_private, is_shared=is_shared)
    try:
        yield shop
    finally:
        await shop.close()


@asynccontextmanager
async def started(folder: Path, behaviours: Mapping[str, str] | None = None) -> AsyncIterator[Shop]:
    """A shop whose engine runs, and that follows the control store."""
    shop = await open_shop(folder)
    shop.behave(**(behaviours or {}))
    shop.engine.supervisor.start()
    following = asyncio.create_task(shop.catalogs.follower.follow())
    try:
        yield shop
    finally:
        following.cancel()
        await shop.engine.supervisor.stop()
        shop.guard.end()
        await shop.close()
