"""Work on catalogs in a process of its own.

Invariant: it is a polite one, so that millions of items are read, sorted and checked without taking an interpreter or much of a processor
from those who serve; and its memory is gone when it ends. Who stops waiting for it ends it.
"""

import asyncio
import os
import sys
from pathlib import Path

NICENESS = 10


class ProcessDied(Exception):
    """A process that ended without saying what has become of its work."""


async def run_module(module: str, *arguments: str, given: bytes | None = None) -> bytes:
    """Runs a module of this project and returns what it has written.

    Args:
        given: what it reads.

    Raises:
        ProcessDied: its exit status is not 0.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        output, _ = await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise ProcessDied(f"The process {module} ended with status {process.returncode}.")
    return output


def be_polite() -> None:
    """Lets every other process go first; to be called by the one that was started."""
    os.nice(NICENESS)
