"""The ticks at which a server looks at what nobody tells it of: files, times that are over, the lag of its event loop.

Invariant: all ticks of a process lie on one grid of the event loop's clock, `TICK_SECONDS` apart, so that whoever looks then is woken
together. Reason: most looks are over in microseconds, but a process that sleeps takes many times as long to be woken for one, and a server
has a dozen. Each process has a grid of its own, so that replicas on one machine, whose clock is the same, don't all ask their stores at the
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
