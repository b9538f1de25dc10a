"""The version that a server begins with: the one that all serve, or was served last, or else the last one that can be read.

Invariant: a server starts with a version that it can read whenever there is one, and reports which it had to leave for that. A catalog that
no server was started with before is served by all from then on. A catalog that is not new decides only where no other server is ready: a
server alone serves what it is started with if that is another catalog than the last time.

Beside servers that are ready, a server begins only if it can read what they serve and they can read what it brings; else it would never be
ready, or they would be ready no longer. Nor does it begin with a catalog, new or old, that gives most items other identifiers: that is for
another model, and wrong items would be found, without an error, by the others or by this server. A server whose catalog is the one that was
begun with last is of the release that is served, and does as the others, whatever version they have activated. All of this is judged anew
until the server can begin, which it can at the latest when the others have ended.
"""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from drafting.catalog.difference import difference
from drafting.errors import quoted
from server.catalogs.filters import NamedFilters
from server.catalogs.known import BY_RECOVERY
from server.catalogs.served import ServedCatalog
from server.catalogs.store import CatalogStore
from server.errors import CatalogRefused, FilterRefused, ServerError, VersionNotFound
from server.try_again import FileGone

logger = logging.getLogger(__name__)
BY_START = "start"
BY_RESTART = "restart"
UNREADABLE = "It can't be read any more."
APART = "start all of them with --catalogs, a directory that all see or an object store, or end the others first."
# Share of the items of two versions whose identifiers may differ if one model is to serve both: twins may change places, and little else.
MOST_MOVED = 0.5


@dataclass(frozen=True)
class FirstCatalog:
    """How a server begins.

    Attributes:
        served: the version that it serves, with all filters evaluated.
        by: what decided so (`BY_START`, `BY_RESTART` or `BY_RECOVERY`); None if the server does as the others.
        left: name of the version that was served last, if it is gone or can't be read; None as a rule.
    """

    served: ServedCatalog
    by: str | None
    left: str | None = None


async def first_catalog(catalogs: CatalogStore, filters: NamedFilters, *, alone: bool) -> FirstCatalog:
    """The version that a server begins with, from what is known.

    Args:
        alone: True if no other server is ready.

    Raises:
        CatalogRefused: others serve a version that this server can't read, or they can't read the catalog that it is started with, or that
            is for another model than theirs.
        FilesUnavailable: the version that is served can't be fetched now.
        FilterRefused: a named filter can't be evaluated for any version that can be read, or for the one that others serve.
    """
    start, record = catalogs.start, catalogs.record
    is_another = record.began_last != start.name
    begins = is_another if alone else start.name not in record.began
    last = record.active
    if is_another and not alone and last not in (None, start.name):
        if catalogs.has_private_files:
            raise CatalogRefused(f"Other servers serve version {quoted(last)}, and could not read the catalog of this one: {APART}")
        await _check_same_model(catalogs, last)
    for name in _candidates(catalogs, begins=begins):
        try:
            served = start if name == start.name else await catalogs.load(name)
            await filters.prepare(served)
        except (VersionNotFound, CatalogRefused, FileGone, FilterRefused) as error:
            if name == last and not alone:
                raise _unusable(catalogs, name, error) from error
            if isinstance(error, VersionNotFound):
                # Older ones may have been removed.
                if name == last:
                    logger.error("the version %s can't be served any more: its file is gone", name)
            else:
                logger.error("the version %s can't be served any more: %s", name, error)
            continue
        if begins and name == start.name:
            return FirstCatalog(served, BY_START)
        if not alone:
            return FirstCatalog(served, None)
        if name == last:
            return FirstCatalog(served, BY_START if name == start.name else BY_RESTART)
        return FirstCatalog(served, BY_RECOVERY, last)
    raise FilterRefused(f"No version can be served with the named filters, not even {quoted(start.name)}: see the log.")


async def _check_same_model(catalogs: CatalogStore, served: str) -> None:
    """Raise CatalogRefused if the catalog of this start gives most items other identifiers than a version that others serve."""
    start = catalogs.start
    try:
        found = await asyncio.to_thread(difference, await catalogs.read(served), start.catalog)
    except (VersionNotFound, CatalogRefused, FileGone) as error:
        raise _unusable(catalogs, served, error) from error
    shared = len(start.catalog) - len(found.added)
    if len(found.moved) > MOST_MOVED * shared:
        raise CatalogRefused(
            f"This server's catalog has other identifiers for {len(found.moved):,} of the {shared:,} items that it shares with version "
            f"{quoted(served)}, which other servers serve: it is for another model than theirs. Servers of another model need a control "
            "store of their own (--control-prefix, or another --control), or the others must end first."
        )


def _unusable(catalogs: CatalogStore, served: str, error: ServerError) -> ServerError:
    """The error of a server that can't serve what others do, or compare its own catalog with that."""
    if isinstance(error, FilterRefused):
        return error
    reason = f": {APART}" if catalogs.has_private_files else f". {error} This server begins when it can, or when they have ended."
    return CatalogRefused(f"Other servers serve version {quoted(served)}, which this server can't read{reason}")


def _candidates(catalogs: CatalogStore, *, begins: bool) -> Iterator[str]:
    """Names of versions in the order in which they are tried."""
    start = catalogs.start.name
    if begins:
        yield start
    if (last := catalogs.record.active) is not None:
        yield last
        if last != start:
            yield from (name for name in catalogs.served_before(last) if name != start)
    if not begins:
        yield start
