"""Shared memory of an engine whose model runs in several processes, which the kernel keeps when they are killed.

Invariant: the engine writes the names into its temporary directory as soon as its processes have made them, so the supervisor, or the next
server on this machine, removes the memory when it removes that directory. Only files of this user count, and only names that libraries make
up at random: memory that several programs share under an agreed name is not an engine's.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

FOLDER = Path("/dev/shm")
_LIST = "shared-memory"
_NAMES = re.compile(rf"{FOLDER}/((?:psm_|sem\.|vllm_|nccl-)\S+)")


def write_down(directory: Path) -> None:
    """Note the shared memory of all processes of this process group."""
    names: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        # A process may end while it is looked at.
        with suppress(OSError):
            if os.getpgid(int(maps.parent.name)) == os.getpgrp():
                names |= set(_NAMES.findall(maps.read_text()))
                # Semaphores that are closed are in no map; their names tell who made them.
                names |= {file.name for file in FOLDER.glob(f"sem.loky-{maps.parent.name}-*")}
    (directory / _LIST).write_text("\n".join(sorted(names)))


def remove_noted(directory: Path) -> None:
    """Remove the shared memory of an engine that has ended."""
    with suppress(OSError):
        for name in (directory / _LIST).read_text().split():
            file = FOLDER / Path(name).name
            with suppress(OSError):
                if file.stat().st_uid == os.getuid():
                    file.unlink()
