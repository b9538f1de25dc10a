"""The files of versions in an object store: S3 and what speaks its protocol, Google's, Azure's, or a directory (`file:///…`).

Invariant: a name shows a whole file or nothing, also while it is written and after a writer was killed; and a file is held in memory in
pieces only, whatever its size. Credentials come from the environment, as obstore reads them, and stand in no message.

Only calls that block are used, in threads: those of obstore's that are awaited end in threads of its own, which now and then abort a Python
process that ends right after them. This module is imported only where a server is told to use an object store.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import ObjectStore, from_url

from server.catalogs.object_errors import told
from server.try_again import FileGone, FilesUnavailable

PIECE = 8 << 20
# What is sent as one request, which alone can be told to replace nothing; obstore reads it into memory whole.
_AT_ONCE = PIECE
_REQUESTS_AT_A_TIME = 4
_RETRIES, _RETRY_SECONDS = 3, 15
RETRY_AFTER_SECONDS = 5
# Long before a file may be removed that no version names yet.
_YOUNG = timedelta(minutes=30)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the store, its size in bytes, and the time since it was written."""

    name: str
    size: int
    age: timedelta


class ObjectFiles:
    """The files below a URL. All methods wait for the store, if it is silent for a minute or so: call them in threads.

    What they raise is the end of a sentence, but for `put`.
    """

    def __init__(self, url: str) -> None:
        """
        Raises:
            ValueError: it is no URL of a store, or its credentials make no sense.
        """
        self._url = url
        self._is_closed = False
        try:
            self._store: ObjectStore = from_url(
                url, retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)}
            )
        except (BaseError, ValueError) as error:
            raise ValueError(f"The object store {url} can't be used: {told(error)}.") from error

    def put(self, path: Path, name: str) -> None:
        """Store a file whose contents are those of its name; when it returns, everybody can read it.

        A file that is there already stays, and is written anew when it is old, so that nobody removes it in the next minutes.

        Raises:
            FilesUnavailable: it can't be stored.
        """
        try:
            there = self._find(name)
            if there is not None and there.age < _YOUNG:
                return
            creates = there is None and path.stat().st_size <= _AT_ONCE
            obstore.put(
                self._store,
                name,
                path,
                mode="create" if creates else "overwrite",
                chunk_size=PIECE,
                max_concurrency=_REQUESTS_AT_A_TIME,
            )
        except AlreadyExistsError:
            # Another server has brought the same contents meanwhile.
            return
        except (BaseError, OSError) as error:
            raise FilesUnavailable(f"The catalog can't be stored: {self._reason(error)}.", RETRY_AFTER_SECONDS) from error

    def get(self, name: str, path: Path) -> None:
        """Write a file of the store to `path`.

        Raises:
            FileGone: it is not there.
            FilesUnavailable: it can't be read now, or its server ends.
            OSError: `path` can't be written.
        """
        with path.open("wb") as file:
            for start in range(0, size := self.size(name), PIECE):
                if self._is_closed:
                    raise FilesUnavailable("the server is shutting down", RETRY_AFTER_SECONDS)
                try:
                    piece = obstore.get_range(self._store, name, start=start, end=min(start + PIECE, size))
                except (BaseError, OSError) as error:
                    raise FilesUnavailable(self._reason(error), RETRY_AFTER_SECONDS) from error
                file.write(piece)

    def close(self) -> None:
        """End what is being read: its thread would keep the process, which waits for it, for as long as the whole file takes."""
        self._is_closed = True

    def has(self, name: str) -> bool:
        """True if there is a file of that name.

        Raises:
            FilesUnavailable: the store does not answer.
        """
        try:
            return bool(name.strip("/")) and self._find(name) is not None
        except ValueError:
            # A name that no store can have.
            return False
        except (BaseError, OSError) as error:
            raise FilesUnavailable(self._reason(error), RETRY_AFTER_SECONDS) from error

    def size(self, name: str) -> int:
        """The bytes of a file.

        Raises:
            FileGone: it is not there.
            FilesUnavailable: the store does not answer.
        """
        try:
            return obstore.head(self._store, name)["size"]
        except FileNotFoundError as error:
            raise FileGone(self._reason(error), RETRY_AFTER_SECONDS) from error
        except (BaseError, OSError) as error:
            raise FilesUnavailable(self._reason(error), RETRY_AFTER_SECONDS) from error

    def files(self) -> list[StoredFile]:
        """The files directly below the URL.

        Raises:
            FilesUnavailable: the store does not answer.
        """
        now = datetime.now(UTC)
        try:
            found = obstore.list_with_delimiter(self._store)["objects"]
        except (BaseError, OSError) as error:
            raise FilesUnavailable(self._reason(error), RETRY_AFTER_SECONDS) from error
        return [StoredFile(each["path"], each["size"], now - each["last_modified"]) for each in found]

    def delete(self, names: Collection[str], older: timedelta) -> None:
        """Delete those of the files that are older than that, also if they have become younger since they were listed.

        Raises:
            FilesUnavailable: the store does not answer.
        """
        for name in names:
            try:
                there = self._find(name)
                if there is not None and there.age > older:
                    obstore.delete(self._store, name)
            except FileNotFoundError:
                # Another server was faster.
                continue
            except (BaseError, OSError) as error:
                raise FilesUnavailable(self._reason(error), RETRY_AFTER_SECONDS) from error

    def _find(self, name: str) -> StoredFile | None:
        try:
            found = obstore.head(self._store, name)
        except FileNotFoundError:
            return None
        return StoredFile(name, found["size"], datetime.now(UTC) - found["last_modified"])

    def _reason(self, error: Exception) -> str:
        """The end of a sentence for clients, to whom what the log is told says too much."""
        logger.warning("the object store %s: %s", self._url, told(error))
        match error:
            case PermissionDeniedError() | UnauthenticatedError():
                return "the object store refuses the server's credentials"
            case FileNotFoundError():
                return "the object store does not have it, or there is no such bucket"
            case _:
                return "the object store can't be reached now"
