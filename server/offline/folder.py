"""Files in a directory or in an object store (`s3://…`, `gs://…`, `az://…`), read in pieces and written whole.

Invariant: a name shows a whole file or nothing, also while it is written and after a writer was killed.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from drafting.errors import SetupError
from server.catalogs.files import SCHEMES

_PIECE = 4 << 20
# Of a file that is being written; readers of folders of data pass over what begins with a dot.
_UNFINISHED = ".unfinished-"


class FolderError(SetupError):
    """Files that can't be listed, read or written; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class FolderFile:
    """A file below a folder.

    Attributes:
        name: with / between the folders below the folder and itself.
        version: another one for other contents, as far as the folder tells.
    """

    name: str
    size: int
    version: str


class Folder(Protocol):
    """A directory, or a prefix of an object store. All methods raise FolderError.

    Attributes:
        place: its path or URL.
    """

    place: str

    def files(self) -> list[FolderFile]:
        """All files, those of folders in it too, by name."""

    def find(self, name: str) -> FolderFile | None:
        """A file; None if there is none of that name."""

    def range(self, name: str, start: int, end: int) -> bytes:
        """The bytes of a file from `start`, fewer where it ends before `end`."""

    def write(self, name: str, contents: bytes) -> None:
        """Write a file, in place of one that is there."""

    def tidy(self) -> None:
        """Remove what killed writers have left."""


def is_url(place: str) -> bool:
    """True for what names a file or a folder of an object store, or a local one by `file://`."""
    return "://" in place


def open_folder(place: str) -> Folder:
    """The folder of a path or a URL.

    Raises:
        FolderError: it is no URL of a store.
    """
    scheme, split, rest = place.partition("://")
    if not split or scheme == "file":
        return LocalFolder(Path(rest or place))
    if scheme not in SCHEMES:
        raise FolderError(f"Files lie in directories or below URLs of {', '.join(f'{each}://' for each in SCHEMES)}; got {place}.")
    # Most runs need no object store, and a process that has used one can't be forked any more.
    from server.offline.object_folder import ObjectFolder

    return ObjectFolder(place)


def open_file(folder: Folder, name: str, size: int) -> BinaryIO:
    """A file of that size, to be read from any place; reading raises FolderError."""
    return io.BufferedReader(_Pieces(folder, name, size), _PIECE)


class LocalFolder:
    """A directory; see `Folder`. It is made when the first file is written."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self.place = str(self._path)

    def files(self) -> list[FolderFile]:
        """See `Folder`."""
        try:
            paths = sorted(path for path in self._path.rglob("*") if path.is_file() and not path.name.startswith(_UNFINISHED))
            return [self._file(path) for path in paths]
        except OSError as error:
            raise self._failed("read", self._path, error) from error

    def find(self, name: str) -> FolderFile | None:
        """See `Folder`."""
        path = self._path / name
        try:
            return self._file(path) if path.is_file() else None
        except OSError as error:
            raise self._failed("read", path, error) from error

    def range(self, name: str, start: int, end: int) -> bytes:
        """See `Folder`."""
        try:
            with (self._path / name).open("rb") as file:
                file.seek(start)
                return file.read(end - start)
        except OSError as error:
            raise self._failed("opened", self._path / name, error) from error

    def write(self, name: str, contents: bytes) -> None:
        """See `Folder`; what is written is on the disk when it returns."""
        path, unfinished = self._path / name, self._path / f"{_UNFINISHED}{os.urandom(8).hex()}"
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                file.write(contents)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except OSError as error:
            raise self._failed("written", path, error) from error

    def tidy(self) -> None:
        """See `Folder`."""
        for path in self._path.glob(f"{_UNFINISHED}*"):
            path.unlink(missing_ok=True)

    def _file(self, path: Path) -> FolderFile:
        status = path.stat()
        return FolderFile(path.relative_to(self._path).as_posix(), status.st_size, str(status.st_mtime_ns))

    def _failed(self, verb: str, path: Path, error: OSError) -> FolderError:
        return FolderError(f"{path} can't be {verb}: {error.strerror}.")


class _Pieces(io.RawIOBase):
    """The bytes of a file as readers of JSON lines and of parquet ask for them."""

    def __init__(self, folder: Folder, name: str, size: int) -> None:
        self._folder, self._name, self._size, self._at = folder, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self._folder.range(self._name, self._at, min(self._at + len(buffer), self._size))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
