"""Files of users: one or many, JSON lines or parquet, here or in an object store.

Invariant: a place names the same files whenever it is asked, so lists are never written among the users that it names.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from drafting.errors import SetupError
from server.offline.folder import FolderFile, open_file
from server.offline.places import is_url, open_folder

TABLES = (".parquet", ".pq")
ENDINGS = (".jsonl", ".ndjson", ".json", *TABLES)


class UsersError(SetupError):
    """Users that can't be read; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class UserFile:
    """A file of users below a folder.

    Attributes:
        version: another one for other contents, as far as the folder tells.
    """

    folder: str
    name: str
    size: int
    version: str

    @property
    def is_table(self) -> bool:
        return self.name.endswith(TABLES)

    def open(self) -> BinaryIO:
        """The file, to be read from any place; reading raises FolderError, also if it has changed since it was found."""
        return open_file(open_folder(self.folder), self._found)

    def range(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`. Raises FolderError, also if the file has changed since it was found."""
        return open_folder(self.folder).range(self._found, start, end)

    @property
    def _found(self) -> FolderFile:
        return FolderFile(self.name, self.size, self.version)


@dataclass(frozen=True, slots=True)
class UserPlace:
    """The files that a path or a URL of users names.

    Attributes:
        given: the place as the user wrote it.
        base: path or URL of the folder that the files lie below.
        takes: whether a file is meant, by its name below the folder.
        folders: number of folders between the folder and the files.
        only: name of the only file; None where there may be many.
    """

    given: str
    base: str
    takes: Callable[[str], bool]
    folders: int = 0
    only: str | None = None

    @classmethod
    def of(cls, place: str) -> "UserPlace":
        """The files of a place: one file, those of a folder, or those that a pattern fits.

        Raises:
            UsersError: it is not there.
            FolderError: it can't be found out.
        """
        if not is_url(place):
            # What is there under a name with wildcards in it is meant.
            if (path := Path(place)).is_file():
                return cls._one(place, str(path.parent), path.name)
            if path.is_dir():
                return cls(place, place, _is_data)
        scheme, split, rest = place.partition("://") if is_url(place) else ("", "", place)
        parts = rest.rstrip("/").split("/")
        wild = next((at for at, part in enumerate(parts) if set("*?[") & {*part}), None)
        if wild is not None:
            pattern = parts[wild:]
            base = scheme + split + ("/".join(parts[:wild]) or ("/" if rest.startswith("/") else "."))
            return cls(place, base, lambda name: _matches(name.split("/"), pattern), len(pattern) - 1)
        if not is_url(place):
            raise UsersError(f"{place} can't be opened: No such file or directory.")
        if len(parts) > 1 and not place.endswith("/"):
            base = scheme + split + "/".join(parts[:-1])
            if open_folder(base).find(parts[-1]) is not None:
                return cls._one(place, base, parts[-1])
        return cls(place, place, _is_data)

    @classmethod
    def _one(cls, given: str, base: str, only: str) -> "UserPlace":
        return cls(given, base, lambda name: name == only, only=only)

    def files(self) -> list[UserFile]:
        """The files, by name.

        Raises:
            UsersError: there are none.
            FolderError: they can't be listed.
        """
        folder = open_folder(self.base)
        if self.only is not None:
            found = [file for file in (folder.find(self.only),) if file is not None]
        else:
            found = [file for file in folder.files(self.folders) if self.takes(file.name)]
        if not found:
            raise UsersError(f"There are no files of users at {self.given}: they end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}.")
        return [UserFile(folder.place, file.name, file.size, file.version) for file in found]

    def takes_any(self, place: str, names: Iterable[str]) -> bool:
        """True if one of these files of another folder, a path or a URL, would be taken for users.

        Raises:
            FolderError: the other folder is no URL of a store.
        """
        base, other = (_whole(open_folder(folder).place) for folder in (self.base, place))
        below = other.removeprefix(base).strip("/")
        if other != base and not other.startswith(f"{base.rstrip('/')}/"):
            return False
        return any(self.takes(f"{below}/{name}" if below else name) for name in names)


def _is_data(name: str) -> bool:
    """True for a file directly in the folder; what begins with _ or . is what others note beside their data."""
    return "/" not in name and not name.startswith(("_", ".")) and PurePosixPath(name).suffix in ENDINGS


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern))


def _whole(place: str) -> str:
    return place if is_url(place) else Path(place).resolve().as_posix()
