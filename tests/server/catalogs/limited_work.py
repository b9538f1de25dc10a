"""A process in the background that takes more than it may; it imports little, so that what it takes is what it was told."""

import resource
import sys
import time
from pathlib import Path

import msgspec

from server.catalogs.background import answer_order


class Task(msgspec.Struct, frozen=True):
    """What this process is to do."""

    what: str


class Done(msgspec.Struct, frozen=True):
    """What it found."""

    data: int = 0
    seconds: int = 0
    oom_score_adj: int = 0


def work(task: Task) -> Done:
    match task.what:
        case "memory":
            bytearray(2**30)
        case "processor":
            while True:
                pass
        case "sleep":
            time.sleep(60)
        case "die":
            sys.exit(3)
    score = int(Path("/proc/self/oom_score_adj").read_text())
    return Done(resource.getrlimit(resource.RLIMIT_DATA)[0], resource.getrlimit(resource.RLIMIT_CPU)[0], score)


if __name__ == "__main__":
    answer_order(Task, work)
