"""Waiting for what is to come, however busy the machine is: what has not come within a minute does not come."""

import asyncio
import time
from collections.abc import Callable

import psutil

SECONDS = 60.0
_PAUSE_SECONDS = 0.01


async def until(condition: Callable[[], bool]) -> None:
    """Return once something holds. Raises TimeoutError."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(_PAUSE_SECONDS)


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once something holds, without an event loop. Raises TimeoutError."""
    ends = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError
        time.sleep(_PAUSE_SECONDS)


def has_ended(process: psutil.Process) -> bool:
    """True if a process has ended; whoever inherits it may take its time to say so."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
