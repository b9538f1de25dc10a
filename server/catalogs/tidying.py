"""Removing files that belong to no version, from the directory of the versions (or a cache) and from the object store; and removing from a
cache what its server can do without.

Invariant: a file is removed only if no version that any of these servers knows is in it, it is more than an hour old, and it came after
these servers began to know versions. An hour, because a server stores a file before it names the version. What came before is of another
fleet, or of this one before it lost its control store, which may have to be restored with it.

A cache of the object store keeps what is served, what was served last, and what was used within an hour. Reason: all else can be fetched
again, and versions that are never deleted would fill the disks of all servers at the same time.
"""

import asyncio
import logging
import time
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta

from drafting.catalog.artefact import digest_in
from server.catalogs.deaths import DEATHS
from server.catalogs.files import KEPT_SECONDS, UNFINISHED, VersionFiles, is_old
from server.catalogs.store import CatalogStore
from server.try_again import FilesUnavailable

TIDY_SECONDS = 600.0
# No file is written for so long, and a server that lives writes its `DeathFile` more often.
UNFINISHED_SECONDS = 24 * 3600.0
# Versions served last, the active one among them, whose files stay in the cache: to go back to while the object store is away.
NEAR_VERSIONS = 4

logger = logging.getLogger(__name__)


async def watch_files(catalogs: CatalogStore) -> None:
    """Tidy up now and then, for ever; not while it is not sure what versions there are."""
    follower = catalogs.follower
    while True:
        await asyncio.sleep(TIDY_SECONDS)
        if not follower.is_current:
            # As after a pause of this process: others may have brought versions meanwhile.
            continue
        named = {path.name for path in catalogs.paths()}
        try:
            await asyncio.to_thread(tidy, catalogs.files, named, catalogs.record.created)
            await asyncio.to_thread(uncache, catalogs.files, named - near(catalogs))
        except FilesUnavailable as error:
            logger.warning("the files of versions can't be tidied up: %s", error)


def near(catalogs: CatalogStore) -> set[str]:
    """The names of the files that stay in this server's cache, however long they were not used."""
    names = catalogs.record.served[:NEAR_VERSIONS] + ([] if catalogs.trying is None else [catalogs.trying])
    versions = catalogs.record.versions
    return {catalogs.active.path.name} | {versions[name].file for name in names if name in versions}


def tidy(files: VersionFiles, named: Collection[str], since: float) -> None:
    """Remove files that no version is in, and store again what the object store has lost of the others.

    Args:
        named: names of the files of all versions that the servers know.
        since: when they began to know versions, seconds since 1970.

    Raises:
        FilesUnavailable: the object store does not answer.
    """
    now = time.time()
    with suppress(OSError):
        for path in files.directory.iterdir():
            if path.name not in named and _goes(path.name, now - path.stat().st_mtime, now - since):
                logger.info("deleting %s, which no version needs", path)
                files.discard(path)
    if files.objects is None:
        return
    stored = {file.name: file.age.total_seconds() for file in files.objects.files()}
    if superfluous := [name for name, age in stored.items() if name not in named and _goes(name, age, now - since)]:
        logger.info("deleting from the object store what no version needs: %s", ", ".join(superfluous))
        files.objects.delete(superfluous, timedelta(seconds=KEPT_SECONDS))
    for name in named:
        if name not in stored and digest_in(name) is not None and (files.directory / name).exists():
            logger.warning("the object store has lost %s: it is stored there again", name)
            files.objects.put(files.directory / name, name)


def uncache(files: VersionFiles, named: Collection[str]) -> None:
    """Remove from a cache of the object store what was not used for an hour and is there.

    Args:
        named: names of the files of versions that this server can do without.

    Raises:
        FilesUnavailable: the object store does not answer.
    """
    if files.objects is None:
        return
    for path in (files.directory / name for name in named if digest_in(name) is not None):
        # It may be used while the object store is asked.
        if is_old(path) and files.objects.has(path.name) and is_old(path):
            logger.info("deleting %s from the cache: it is in the object store, and was not used for an hour", path)
            files.discard(path)


def _goes(name: str, age: float, oldest: float) -> bool:
    """True for a file that nobody will need, if no version is in it."""
    if name.startswith((UNFINISHED, DEATHS)):
        return age > UNFINISHED_SECONDS
    return digest_in(name) is not None and KEPT_SECONDS < age < oldest
