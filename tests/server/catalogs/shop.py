"""The services of a server around a directory of versions, on an engine process without a model."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drafting.catalog.artefact import save_artefact
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from server.catalogs.files import VersionFiles
from server.catalogs.filters import NamedFilters
from server.catalogs.guard import CatalogGuard
from server.catalogs.start import first_catalog
from server.catalogs.store import CatalogStore, ServedCatalog
from server.catalogs.switch import CatalogSwitch
from server.engine.client import EngineClient, EngineStatus
from server.engine_settings import EngineOptions
from server.metrics.registry import Metrics


def small_catalog(seed: int) -> Catalog:
    """A catalog made without the model libraries, which take seconds to import."""
    rows = np.random.default_rng(seed).integers(5, size=(20, 3)).tolist()
    return catalog_of({f"item-{i}": [f"<{level}_{code}>" for level, code in zip("abc", row, strict=True)] for i, row in enumerate(rows)})


START, ONE, TWO = (small_catalog(seed) for seed in (1, 2, 3))


@dataclass
class Shop:
    """What a test may ask."""

    directory: Path
    engine: EngineClient
    catalogs: CatalogStore
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

    async def ready(self) -> None:
        await until(lambda: self.engine.status is EngineStatus.READY)

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


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def open_shop(folder: Path) -> Shop:
    """The services as a server makes them when it starts; what it serves is not proven yet, for nothing is started."""
    directory, start_file = folder / "catalogs", folder / "start.catalog"
    directory.mkdir(exist_ok=True)
    if not start_file.exists():
        save_artefact(START, start_file)
    first = first_catalog(START, start_file, directory)
    failures: list[str] = []
    options = EngineOptions(target=folder / "behaviours.json", catalog=first.served.path)
    metrics = Metrics()
    engine = EngineClient(options, first.served.catalog.version, metrics, max_pending=10, on_failure=failures.append)
    catalogs = CatalogStore(first.served, engine, VersionFiles(directory), ServedCatalog(START.version, "", start_file, START))
    catalogs.started(first.by, first.left, "It can't be read any more.")
    filters = NamedFilters(catalogs, engine)
    engine.watch = CatalogGuard(catalogs, filters, engine, metrics.health)
    metrics.health.open_catalog(first.served.name, len(first.served.catalog))
    shop = Shop(directory, engine, catalogs, CatalogSwitch(catalogs, filters, metrics.health), filters, metrics, failures)
    shop.behave()
    return shop


@asynccontextmanager
async def started(folder: Path, behaviours: Mapping[str, str] | None = None) -> AsyncIterator[Shop]:
    """A shop whose engine runs."""
    shop = open_shop(folder)
    shop.behave(**(behaviours or {}))
    shop.engine.start()
    try:
        yield shop
    finally:
        await shop.engine.stop()
        shop.catalogs.files.close()
