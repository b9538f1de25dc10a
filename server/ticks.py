"""The ticks at which a server looks at what nobody tells it of: files, times that are over, the lag of its event loop.

Invariant: all ticks lie on one grid of the event loop's clock, `TICK_SECONDS` apart, so that whoever looks then is woken together. Reason:
most looks are over in microseconds, but a process that sleeps takes many times as long to be woken for one, and a server has a dozen.
"""

import asyncio

TICK_SECONDS = 0.1


def until_tick(ticks: int = 1) -> float:
    """Seconds until the next of every so many ticks; not the one that has just been."""
    seconds = ticks * TICK_SECONDS
    left = seconds - asyncio.get_running_loop().time() % seconds
    return left if left > TICK_SECONDS / 2 else left + seconds


async def tick(ticks: int = 1) -> None:
    """Wait for the next of every so many ticks."""
    await asyncio.sleep(until_tick(ticks))
