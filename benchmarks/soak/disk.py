"""A small disk for the versions of the catalog, which can be filled without harm to the machine.

Invariant: only a file system of the soak's own is ever filled: a tmpfs, which takes root rights to mount. Without them nothing is filled,
and the report says so.
"""

import errno
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

MEBIBYTES = 96
_FILLER = "filler"
# Large ones first, then single pages.
_PIECES = (2**20, 2**12)


class SmallDisk:
    """A directory with little room, for as long as the context lasts.

    Attributes:
        kind: what it is, for the report.
        can_fill: whether it is a file system of its own.
        full: whether it is full now.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.full = folder, False
        self.can_fill = os.geteuid() == 0
        self.kind = f"tmpfs of {MEBIBYTES} MiB" if self.can_fill else "not filled: a file system of its own takes root rights to mount"

    def __enter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        if self.can_fill:
            self.can_fill = not subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEBIBYTES}m", "tmpfs", self.folder]).returncode
            self.kind = self.kind if self.can_fill else "not filled: no tmpfs could be mounted here"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.can_fill:
            subprocess.run(["umount", self.folder], check=True)

    def fill(self) -> None:
        """Take all room that is left."""
        self.full = True
        with (self.folder / _FILLER).open("ab", buffering=0) as file:
            for size in _PIECES:
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """Give the room back."""
        self.full = False
        (self.folder / _FILLER).unlink(missing_ok=True)
