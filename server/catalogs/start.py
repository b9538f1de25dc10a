"""The version that a server begins with: the one that was served last, or else the last one that can be read.

Invariant: a server starts with a version that it can read whenever there is one. What it had to leave for that is said.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.loading import load_catalog
from server.catalogs.files import VersionFiles
from server.catalogs.journal import BY_RECOVERY, BY_RESTART, BY_START, Journal
from server.catalogs.store import ServedCatalog

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FirstCatalog:
    """How a server begins.

    Attributes:
        served: the version that it serves.
        by: who decided so.
        left: name of the version that was served last, if it is gone or can't be read; None as a rule.
    """

    served: ServedCatalog
    by: str
    left: str | None = None


def first_catalog(start: Catalog, path: Path, directory: Path | None) -> FirstCatalog:
    """The version that was served last, unless the server is started with another catalog than then.

    Args:
        start: the catalog that the server is started with, and `path` its file.
        directory: directory of the versions; None if they do not outlive a server.
    """
    own = ServedCatalog(start.version, "", path.absolute(), start)
    record = Journal(directory).record if directory is not None else None
    if directory is None or record is None or record.began != start.version:
        return FirstCatalog(own, BY_START)
    paths = VersionFiles(directory).brought() | {name: directory / file for name, file in record.files.items()}
    last = record.history[-1].version
    for name in (last, *record.served_before(last)):
        if name == start.version:
            break
        if name not in paths and name != last:
            # It has been removed.
            continue
        try:
            if name not in paths or not paths[name].exists():
                raise CatalogError("its file is gone")
            served = ServedCatalog(name, "", paths[name].absolute(), load_catalog(paths[name]))
            return FirstCatalog(served, BY_RESTART) if name == last else FirstCatalog(served, BY_RECOVERY, last)
        except CatalogError as error:
            logger.error("the version %s can't be served any more: %s", name, error)
    return FirstCatalog(own, BY_START) if last == start.version else FirstCatalog(own, BY_RECOVERY, last)
