"""A store of catalogs where a test needs one version only."""

from pathlib import Path

from drafting.catalog.catalog import Catalog
from server.catalogs.files import VersionFiles
from server.catalogs.store import CatalogStore, ServedCatalog
from server.engine.client import EngineClient


def stub_catalogs(catalog: Catalog, engine: EngineClient) -> CatalogStore:
    return CatalogStore(ServedCatalog(catalog.version, "", Path("catalog.jsonl"), catalog), engine, VersionFiles(Path("catalogs")))
