"""The ticks at which a server checks what it is not notified of: files, times that are over, the lag of its event loop.

Invariant: all ticks of a process lie on one grid of the event loop's clock, `TICK_SECONDS` apart, so that all checks of a tick are woken
together. Reason: most checks are over in microseconds, but waking a sleeping process for one takes many times as long, and a server has a
dozen of them. Each process has a grid of its own, so that replicas on one machine, which share its clock, don't all ask their stores at the
same instant.
"""

import asyncio
import random

TICK_SECONDS = 0.1
# Where the grid of this process begins: at any time between two looks, however seldom these are.
BEGINS = random.uniform(0.0, 60.0)


def until_tick(ticks: int = 1) -> float:
    """Seconds until the next of every so many ticks; not the one that has just been."""
    seconds = ticks * TICK_SECONDS
    left = seconds - (asyncio.get_running_loop().time() - BEGINS) % seconds
    return left if left > TICK_SECONDS / 2 else left + seconds


async def tick(ticks: int = 1) -> None:
    """Wait for the next of every so many ticks."""
    await asyncio.sleep(until_tick(ticks))
