"""A directory as a folder of users or lists."""

import os
from pathlib import Path

from server.offline.folder import FolderError, FolderFile, changed

# Beginning of the name of an unfinished file; readers of folders of data pass over names that begin with a dot.
_UNFINISHED = ".unfinished-"


class LocalFolder:
    """A directory; see `Folder`. It is made when the first file is written."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self.place = str(self._path)

    def files(self, folders: int = 0) -> list[FolderFile]:
        """See `Folder`."""
        pattern = "/".join(["*"] * (folders + 1))
        try:
            paths = sorted(path for path in self._path.glob(pattern) if path.is_file() and not path.name.startswith(_UNFINISHED))
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

    def range(self, file: FolderFile, start: int, end: int) -> bytes:
        """See `Folder`."""
        path = self._path / file.name
        try:
            with path.open("rb") as opened:
                opened.seek(start)
                piece = opened.read(end - start)
                # After the bytes, so that a change while they were read is seen, too.
                status = os.fstat(opened.fileno())
        except OSError as error:
            raise self._failed("opened", path, error) from error
        if _found(file.name, status) != file:
            raise changed(self.place, file.name)
        return piece

    def write(self, name: str, contents: bytes) -> None:
        """See `Folder`; what is written is on the disk when it returns."""
        path = self._path / name
        try:
            try:
                self._write(path, contents)
            except FileNotFoundError:
                # Another writer has tidied the folder meanwhile.
                self._write(path, contents)
        except OSError as error:
            raise self._failed("written", path, error) from error

    def tidy(self) -> None:
        """See `Folder`."""
        for path in self._path.glob(f"{_UNFINISHED}*"):
            path.unlink(missing_ok=True)

    def _write(self, path: Path, contents: bytes) -> None:
        unfinished = self._path / f"{_UNFINISHED}{os.urandom(8).hex()}"
        self._path.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)

    def _file(self, path: Path) -> FolderFile:
        return _found(path.relative_to(self._path).as_posix(), path.stat())

    def _failed(self, verb: str, path: Path, error: OSError) -> FolderError:
        return FolderError(f"{path} can't be {verb}: {error.strerror}.")


def _found(name: str, status: os.stat_result) -> FolderFile:
    return FolderFile(name, status.st_size, str(status.st_mtime_ns))
