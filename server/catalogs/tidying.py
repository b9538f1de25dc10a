"""Removing files that no version is in, from the directory of the versions, or a cache, and from the object store.

Invariant: a file goes only if it came since these servers know versions, more than an hour ago, and no version that any of them knows is in
it. An hour, because a server stores a file before it names the version. And what came before is of another fleet, or of this one before it
lost its control store: somebody may need it to restore that.
"""

import asyncio
import logging
import time
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta

from drafting.catalog.artefact import digest_in
from server.catalogs.files import KEPT_SECONDS, UNFINISHED, VersionFiles
from server.catalogs.store import CatalogStore
from server.try_again import FilesUnavailable

TIDY_SECONDS = 600.0
# No file is written for so long.
UNFINISHED_SECONDS = 24 * 3600.0

logger = logging.getLogger(__name__)


async def watch_files(catalogs: CatalogStore) -> None:
    """Tidy up now and then, for ever; not while it is not sure what versions there are."""
    follower = catalogs.follower
    while True:
        await asyncio.sleep(TIDY_SECONDS)
        if not follower.is_current:
            # As after a pause of this process: others may have brought versions meanwhile.
            continue
        try:
            await asyncio.to_thread(tidy, catalogs.files, {path.name for path in catalogs.paths()}, catalogs.record.created)
        except FilesUnavailable as error:
            logger.warning("the files of versions can't be tidied up: %s", error)


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


def _goes(name: str, age: float, oldest: float) -> bool:
    """True for a file that nobody will need, if no version is in it."""
    if name.startswith(UNFINISHED):
        return age > UNFINISHED_SECONDS
    return digest_in(name) is not None and KEPT_SECONDS < age < oldest
