"""Where commands keep what they made and can make again: the demo, and models that adapters were merged into.

Invariant: a file that is there is whole. Everything is written beside its place and moved there with one rename, so an interrupted run
leaves nothing that a later one could take for finished; and one process at a time makes things in a folder, so two runs that are started
together don't build over each other.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_directory() -> Path:
    """`ATSPEED_CACHE`, or `~/.cache/atspeed`."""
    chosen = os.environ.get("ATSPEED_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "atspeed"


@contextmanager
def exclusive(folder: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Holds `folder`, made if absent, for this process; calls `on_wait` before it waits for another one. The lock ends with its holder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, with nothing there yet; what is there when the block ends without an error becomes `path`, and is gone else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f"building-{path.name}")
    for leftover in path.parent.glob(f"{building.name}*"):
        leftover.unlink()
    try:
        yield building
        building.replace(path)
    finally:
        building.unlink(missing_ok=True)


def force_to_disk(path: Path) -> None:
    """Wait until what is in a file, or the names in a directory, are on the disk.

    Raises:
        OSError: they can't be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def takes_directory(path: Path) -> bool:
    """True if a whole directory can be moved to `path`, which is no folder by way of `.` or `..`, and none where a disk is mounted."""
    return path.name not in ("", "..") and not path.is_mount()
