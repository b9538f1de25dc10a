"""Names of replicas, and which of them are of processes that have ended.

Invariant: a replica that lives is never taken for dead, though others share its host's name and the number of its process, as containers
do. So only a process of the same boot and the same namespace of processes is looked for; others are dead when they are silent.
"""

import hashlib
import os
import socket
from functools import cache
from pathlib import Path

_TAG_DIGITS = 8


def replica_name() -> str:
    """A name for a replica of this process."""
    return f"{_beginning()}{_tag()}{os.urandom(4).hex()}"


def is_dead(name: str) -> bool:
    """True if a name is of a process that has ended, though its announcement still lives."""
    _, _, rest = name.partition("/")
    process, _, end = rest.partition("/")
    if not _tag() or not process.isdecimal() or not end.startswith(_tag()) or len(end) != len(_tag()) + _TAG_DIGITS:
        return False
    return int(process) == os.getpid() or _has_ended(int(process))


def may_be_former(name: str) -> bool:
    """True if a name may be of this server before it was started again: a container's first process has the number of the one before it."""
    return name.startswith(_beginning())


def _has_ended(process: int) -> bool:
    """True if there is no such process; `/proc` may hide those of other users."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # It is somebody else's.
    return False


def _beginning() -> str:
    return f"{socket.gethostname()}/{os.getpid()}/"


@cache
def _tag() -> str:
    """A tag that is the same for all processes that can see each other; empty where it is not known."""
    try:
        seen = Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
    return hashlib.sha256(seen.encode()).hexdigest()[:_TAG_DIGITS]
