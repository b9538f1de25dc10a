"""A store of catalogs where a test needs one version only."""

from pathlib import Path

from drafting.catalog.catalog import Catalog
from server.catalogs.files import VersionFiles
from server.catalogs.served import ServedCatalog
from server.catalogs.store import CatalogStore
from server.control import ControlStore, open_control_store
from server.control.follower import Follower
from server.engine.client import EngineClient


def stub_catalogs(catalog: Catalog, engine: EngineClient, control: ControlStore | None = None, name: str = "stub") -> CatalogStore:
    start = ServedCatalog(catalog.version, "", Path("catalog.jsonl"), catalog)
    return CatalogStore(start, engine, VersionFiles(Path("catalogs")), Follower(control or open_control_store("memory://"), name))
