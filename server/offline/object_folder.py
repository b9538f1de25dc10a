"""A prefix of an object store as a folder. Credentials come from the environment, as obstore reads them, and stand in no message.

As with versions of the catalog, only calls of obstore's that block are used.
"""

from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import ObjectStore, from_url

from server.catalogs.object_errors import told
from server.offline.folder import FolderError, FolderFile, changed

if TYPE_CHECKING:
    from obstore import ObjectMeta

_RETRIES, _RETRY_SECONDS = 5, 60


class ObjectFolder:
    """The objects below a URL; see `Folder`."""

    def __init__(self, url: str) -> None:
        """
        Raises:
            FolderError: it is no URL of a store, or its credentials make no sense.
        """
        self.place = url.rstrip("/")
        retry_timeout = timedelta(seconds=_RETRY_SECONDS)
        try:
            self._store: ObjectStore = from_url(url, retry_config={"max_retries": _RETRIES, "retry_timeout": retry_timeout})
        except (BaseError, ValueError) as error:
            raise self._failed("opened", error) from error

    def files(self, folders: int = 0) -> list[FolderFile]:
        """See `Folder`."""
        try:
            if folders:
                listed = [each for page in obstore.list(self._store) for each in page if each["path"].count("/") == folders]
            else:
                listed = [*obstore.list_with_delimiter(self._store)["objects"]]
            found = [*map(_file, listed)]
        except (BaseError, OSError) as error:
            raise self._failed("read", error) from error
        return sorted(found, key=lambda file: file.name)

    def find(self, name: str) -> FolderFile | None:
        """See `Folder`."""
        try:
            return _file(obstore.head(self._store, name))
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise self._failed("read", error, name) from error

    def range(self, file: FolderFile, start: int, end: int) -> bytes:
        """See `Folder`."""
        if end <= start:
            return b""
        try:
            got = obstore.get(self._store, file.name, options={"range": (start, end)})
            found, piece = got.meta, bytes(got.bytes())
        except (BaseError, OSError) as error:
            raise self._failed("read", error, file.name) from error
        # What comes with the bytes is of the object that they are of.
        if _same(file, _file(found)):
            return piece
        raise changed(self.place, file.name)

    def write(self, name: str, contents: bytes) -> None:
        """See `Folder`."""
        try:
            obstore.put(self._store, name, contents)
        except (BaseError, OSError) as error:
            raise self._failed("written", error, name) from error

    def tidy(self) -> None:
        """See `Folder`; an object store keeps nothing of what was not finished."""

    def _failed(self, verb: str, error: Exception, name: str | None = None) -> FolderError:
        match error:
            case PermissionDeniedError() | UnauthenticatedError():
                reason = "the object store refuses these credentials"
            case FileNotFoundError():
                reason = "it is not there, or there is no such bucket"
            case _:
                reason = told(error)
        return FolderError(f"{self.place if name is None else f'{self.place}/{name}'} can't be {verb}: {reason}.")


def _file(meta: "ObjectMeta") -> FolderFile:
    return FolderFile(meta["path"], meta["size"], meta["e_tag"] or meta["last_modified"].isoformat(timespec="seconds"))


def _same(file: FolderFile, other: FolderFile) -> bool:
    """True for one object, whose tag Azure writes with quotes in some answers, and gateways that compress call weak."""
    tags = (each.version.removeprefix("W/").strip('"') for each in (file, other))
    return file.size == other.size and len({*tags}) == 1
