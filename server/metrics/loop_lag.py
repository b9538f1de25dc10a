"""The lag of the event loop of the API process, which every client waits for in addition to the engine.

Invariant: it is measured from the inside, always, by asking the loop to come back after a set time; so all that keeps the loop busy
shows.
"""

import asyncio

from server.metrics.registry import Metrics

LOOK_SECONDS = 0.05


async def watch_loop(metrics: Metrics) -> None:
    """Measure the lag of the loop until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        expected = loop.time() + LOOK_SECONDS
        await asyncio.sleep(LOOK_SECONDS)
        metrics.loop_lag.observe(max(0.0, loop.time() - expected))
