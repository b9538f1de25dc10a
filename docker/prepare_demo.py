"""Makes the demo in `ATSPEED_CACHE`, puts its users into the history store that the server of the compose file uses, and makes a key.

Invariant: run again, it changes nothing. `current` is a link to the demo, so that the compose file need not know its settings. The key is
good for all and lies beside the models in plain text: it is for a server that this machine alone can reach.

Run:  python docker/prepare_demo.py redis://redis:6379/0
"""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from drafting.cache import cache_directory
from server.commands.demo import DEMO_USER
from server.demo.films import interactions_of
from server.demo.movielens import download_wheel, read_movielens
from server.demo.preparation import DemoSettings, fill_histories, prepare
from server.histories import open_history_store
from server.keys.file import add_key
from server.keys.key import Scope

KEY_MODE = 0o640


async def known(url: str) -> bool:
    """Whether the store has the demo's users already."""
    store = open_history_store(url, timeout_seconds=30)
    try:
        return bool(await store.read(DEMO_USER, 1))
    finally:
        await store.close()


def main(url: Annotated[str, typer.Argument(help="History store to fill, such as redis://redis:6379/0.")]) -> None:
    """Make the demo, fill a history store with its users, and make a key."""
    cache = cache_directory()
    demo = prepare(cache, DemoSettings())
    movielens = read_movielens(download_wheel(cache))
    if not asyncio.run(known(url)):
        asyncio.run(fill_histories(url, movielens, interactions_of(movielens)))
    key = Path(cache, "key")
    if not key.exists():
        key.touch(KEY_MODE)
        keys = Path(cache, "keys.json")
        keys.unlink(missing_ok=True)
        key.write_text(add_key(keys, "demo", list(Scope)))
    link = Path(cache, "current")
    link.unlink(missing_ok=True)
    link.symlink_to(demo.folder.name)


if __name__ == "__main__":
    typer.run(main)
