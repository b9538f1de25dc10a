"""A process that adds, activates and removes versions until it is killed, and says what it was told.

Run as `python -m tests.server.catalogs.changing FOLDER SEED`.
"""

import asyncio
import random
import sys
from pathlib import Path

from server.catalogs import store
from server.engine.client import EngineClient
from tests.server.catalogs.shop import open_shop, small_catalog


async def take(*_: object) -> None:
    """Take any catalog, in place of an engine."""


async def change(folder: Path, seed: int) -> None:
    vars(store)["prove"] = take
    type.__setattr__(EngineClient, "load_catalog", take)
    rng, shop = random.Random(seed), await open_shop(folder)
    catalogs = [small_catalog(10 + number) for number in range(4)]
    for number in range(10**6):
        name = f"v{seed}-{number}"
        await shop.add(name, rng.choice(catalogs))
        print("added", name, flush=True)
        if rng.random() < 0.5:
            await shop.activate(name)
            print("active", name, flush=True)
        elif rng.random() < 0.3:
            print("removing", name, flush=True)
            async with shop.catalogs.changing:
                await shop.catalogs.remove(name)
            print("removed", name, flush=True)


if __name__ == "__main__":
    asyncio.run(change(Path(sys.argv[1]), int(sys.argv[2])))
