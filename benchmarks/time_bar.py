"""A progress bar over something that takes a known time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tqdm import tqdm


@asynccontextmanager
async def time_bar(title: str, seconds: float) -> AsyncIterator[None]:
    """Show a bar that fills while the context lasts, where somebody looks."""
    with tqdm(total=round(seconds), desc=title, unit="s", leave=False, disable=None) as bar:

        async def tick() -> None:
            while True:
                await asyncio.sleep(1.0)
                bar.update()

        ticking = asyncio.create_task(tick())
        try:
            yield
        finally:
            ticking.cancel()
