"""Catalogs of any form, by what their file is called."""

from pathlib import Path

from drafting.catalog.artefact import SUFFIX, load_artefact
from drafting.catalog.catalog import Catalog
from drafting.catalog.files import read_catalog


def load_catalog(path: Path) -> Catalog:
    """Read a catalog: an artefact (`.catalog`), LC-Rec's index (`.json`), parquet (`.parquet`), anything else as JSONL.

    Raises:
        CatalogError: the file is missing or malformed, or its contents are no catalog.
    """
    return load_artefact(path) if path.suffix == SUFFIX else read_catalog(path)
