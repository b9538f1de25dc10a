"""From an upload, or a file that is there, to a version of the catalog that can be activated.

Invariant: a version comes into being at once, with its finished artefact under its name; an upload that is cut off, a file that is no
catalog, or one that the model can't serve leaves nothing behind.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from drafting.errors import quoted
from server.catalogs.background import ProcessLimits, run_in_background
from server.catalogs.build import BuildOrder, Built
from server.catalogs.store import CatalogStore
from server.errors import CatalogRefused, StorageFull, UnknownForm, UploadCutOff
from server.schemas.catalogs import UPLOAD_FORMS
from server.settings import Settings
from server.try_again import VersionsBusy

# Each has a file of its own on the disk until it is made.
MOST_BROUGHT = 8
RETRY_AFTER_SECONDS = 5


class CatalogUploads:
    """Makes versions, one at a time; a bounded number of files wait for that, or are still coming in."""

    def __init__(self, settings: Settings, catalogs: CatalogStore) -> None:
        # What is read, and where it is written, is said by each upload.
        self._order = BuildOrder(
            source="",
            artefact="",
            target=str(settings.target.absolute()),
            draft=_absolute(settings.draft),
            base=_absolute(settings.base),
            draft_base=_absolute(settings.draft_base),
            max_items=settings.catalog_max_items,
            max_ratio=settings.catalog_max_ratio,
        )
        self._limits = ProcessLimits(settings.catalog_build_memory_gib, settings.catalog_build_seconds)
        self._catalogs = catalogs
        self._building = asyncio.Lock()
        self._brought = 0

    async def from_path(self, name: str, path: str) -> Built:
        """Make a version of a file that lies beside the versions.

        Raises:
            UnknownFile, CatalogRefused, VersionExists: there is no such file there, or it can't be served, or the name is taken.
            VersionsBusy: as many versions are being brought as the server takes on.
            StorageFull, FilesUnavailable: it can't be read or stored now.
        """
        self._catalogs.check_new(name)
        with self._place():
            async with self._catalogs.files.source(path) as source:
                return await self._build(name, source)

    async def from_upload(self, name: str, content_type: str, body: AsyncIterator[bytes], length: int | None) -> Built:
        """Make a version of a body as it comes in.

        Args:
            length: declared length of the body; None if not declared.

        Raises:
            UnknownForm, UploadCutOff, StorageFull, FilesUnavailable, CatalogRefused, VersionExists: no version can be made of the body.
            VersionsBusy: as many versions are being brought as the server takes on; nothing of the body has been read.
        """
        suffix = UPLOAD_FORMS.get(content_type.partition(";")[0].strip().lower())
        if suffix is None:
            raise UnknownForm(f"Send a path as application/json, or a catalog as {', '.join(UPLOAD_FORMS)}; got {quoted(content_type)}.")
        self._catalogs.check_new(name)
        with self._place():
            upload = self._catalogs.files.unfinished(suffix)
            try:
                await _receive(upload, body, length)
                return await self._build(name, upload)
            finally:
                self._catalogs.files.discard(upload)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Count a version that is brought, for as long as its file takes room.

        Raises:
            VersionsBusy: there is no place for another one.
        """
        if self._brought >= MOST_BROUGHT:
            sentence = f"The server is bringing {MOST_BROUGHT} versions of the catalog already: send this one again when one is done."
            raise VersionsBusy(sentence, RETRY_AFTER_SECONDS)
        self._brought += 1
        try:
            yield
        finally:
            self._brought -= 1

    async def _build(self, name: str, source: Path) -> Built:
        async with self._building:
            self._catalogs.check_new(name)
            artefact = self._catalogs.files.unfinished()
            order = msgspec.structs.replace(self._order, source=str(source), artefact=str(artefact))
            try:
                built = await run_in_background("server.catalogs.build", order, Built, self._limits, CatalogRefused)
                if built.sentence is not None:
                    raise (StorageFull if built.storage else CatalogRefused)(built.sentence)
                await self._catalogs.add(name, artefact, built.digest)
            finally:
                self._catalogs.files.discard(artefact)
            return built


async def _receive(upload: Path, body: AsyncIterator[bytes], length: int | None) -> None:
    received = 0
    try:
        with upload.open("wb") as file:
            async for piece in body:
                received += len(piece)
                await asyncio.to_thread(file.write, piece)
    except OSError as error:
        raise StorageFull(f"The upload can't be stored: {error.strerror}.") from error
    if length is not None and received != length:
        raise UploadCutOff(f"The upload ended after {received:,} of {length:,} bytes.")


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
