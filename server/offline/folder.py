"""Folders of users and lists: a directory, or a prefix in an object store, whose files are read in pieces and written whole.

Invariant: a name shows a whole file or nothing, also while it is written and after a writer was killed. And what is read of a file that was
found is of that file, not of another one that has taken its name meanwhile.
"""

import io
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from drafting.errors import SetupError

_PIECE = 4 << 20


class FolderError(SetupError):
    """Files that can't be listed, read or written; the message is a sentence."""


class FileChanged(FolderError):
    """A file that is no longer as it was found; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class FolderFile:
    """A file below a folder.

    Attributes:
        name: path below the folder, with / between its parts.
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

    def files(self, folders: int = 0) -> list[FolderFile]:
        """The files that lie so many folders below it, by name; those directly in it by default."""

    def find(self, name: str) -> FolderFile | None:
        """A file; None if there is none of that name."""

    def range(self, file: FolderFile, start: int, end: int) -> bytes:
        """The bytes of a file that was found, from `start`, fewer where it ends before `end`; FolderError, too, if it has changed since."""

    def write(self, name: str, contents: bytes) -> None:
        """Write a file, in place of one that is there."""

    def tidy(self) -> None:
        """Remove what killed writers have left."""


def changed(place: str, name: str) -> FileChanged:
    """The error of a file that is no longer as it was found."""
    return FileChanged(f"{place}/{name} has changed since the run began: begin anew, and leave it as it is until the run ends.")


def open_file(folder: Folder, file: FolderFile) -> BinaryIO:
    """A file that was found, to be read from any place; reading raises FolderError."""
    return io.BufferedReader(_Pieces(folder, file), _PIECE)


class _Pieces(io.RawIOBase):
    """The bytes of a file as readers of JSON lines and of parquet ask for them."""

    def __init__(self, folder: Folder, file: FolderFile) -> None:
        self._folder, self._file, self._at = folder, file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._file.size)[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self._folder.range(self._file, self._at, min(self._at + len(buffer), self._file.size))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
