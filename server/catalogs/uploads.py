"""From an upload, or a file that is there, to a version of the catalog that can be activated.

Invariant: a version comes into being at once, with its finished artefact under its name; an upload that is cut off, a file that is no
catalog, or one that the model can't serve leaves nothing behind.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from server.catalogs.background import run_in_background
from server.catalogs.build import BuildOrder, Built
from server.catalogs.store import CatalogStore
from server.errors import CatalogRefused, StorageFull, UnknownFile, UnknownForm, UploadCutOff, quoted
from server.settings import Settings

# The form of an upload, by its content type.
FORMS = {
    "application/x-ndjson": ".jsonl",
    "application/vnd.apache.parquet": ".parquet",
    "application/vnd.atspeed.index+json": ".json",
    "application/octet-stream": ".catalog",
}


class CatalogUploads:
    """Makes versions, one at a time."""

    def __init__(self, settings: Settings, catalogs: CatalogStore) -> None:
        self._models = [str(path.absolute()) for path in (settings.target, settings.draft) if path is not None]
        self._catalogs = catalogs
        self._building = asyncio.Lock()

    async def from_path(self, name: str, path: str) -> Built:
        """Make a version of a file in the directory of the versions.

        Raises:
            UnknownFile, CatalogRefused, VersionExists: there is no such file there, or it can't be served, or the name is taken.
        """
        directory = self._catalogs.directory.resolve()
        source = (directory / path).resolve()
        if not source.is_relative_to(directory) or not source.is_file():
            raise UnknownFile(f"There is no file {quoted(path)} in the server's directory of catalogs.")
        return await self._build(name, source)

    async def from_upload(self, name: str, content_type: str, body: AsyncIterator[bytes], length: int | None) -> Built:
        """Make a version of a body as it comes in.

        Args:
            length: declared length of the body; None if not declared.

        Raises:
            UnknownForm, UploadCutOff, StorageFull, CatalogRefused, VersionExists: no version can be made of the body.
        """
        suffix = FORMS.get(content_type.partition(";")[0].strip().lower())
        if suffix is None:
            raise UnknownForm(f"Send a path as application/json, or a catalog as {', '.join(FORMS)}; got {quoted(content_type)}.")
        self._catalogs.check_new(name)
        upload = self._catalogs.directory / f"{name}.upload-{os.urandom(4).hex()}{suffix}"
        try:
            await _receive(upload, body, length)
            return await self._build(name, upload)
        finally:
            upload.unlink(missing_ok=True)

    async def _build(self, name: str, source: Path) -> Built:
        async with self._building:
            self._catalogs.check_new(name)
            artefact = self._catalogs.new_file(name)
            died = CatalogRefused("The process that reads the catalog died, for lack of memory perhaps.")
            built = await run_in_background("server.catalogs.build", BuildOrder(str(source), str(artefact), *self._models), Built, died)
            if built.sentence is not None:
                raise CatalogRefused(built.sentence)
            self._catalogs.add(name)
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
