"""`Watch`: the log of the control store as it grows, with the time at which each write was seen there.

Reason: a write carries the time at which its replica set about it, before it was there; when it was there at the latest, another client of
the same Redis has seen.
"""

import asyncio
import threading
import time
from contextlib import suppress

from server.control import ControlStore, Position, State, Write, open_control_store
from server.try_again import ControlUnavailable

POLL_SECONDS = 0.02


class Watch:
    """Reads the store in a thread of its own.

    Attributes:
        first: the state when it began.
        seen: by the id of each write, when it was seen first; writes that a failover has lost are among them.
    """

    first: State

    def __init__(self, url: str) -> None:
        self.seen: dict[str, float] = {}
        self._url = url
        self._over, self._begun = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> None:
        """Begin; returns when the first state is read."""
        self._thread.start()
        if not self._begun.wait(30):
            raise RuntimeError("The control store does not answer.")

    def end(self) -> list[Write]:
        """End, and read the whole log since `first`. Raises RuntimeError if it is not the same state that has grown."""
        self._over.set()
        self._thread.join()
        writes = asyncio.run(self._log())
        if writes is None:
            raise RuntimeError("The control store has another state than at the start, and not one that has come from it.")
        return writes

    async def _run(self) -> None:
        store = open_control_store(self._url)
        first = await store.state()
        assert first is not None
        self.first, position = first, first.position
        self._begun.set()
        while not self._over.is_set():
            with suppress(ControlUnavailable):  # It is seen later.
                position = await self._read(store, position)
            await asyncio.sleep(POLL_SECONDS)
        await store.close()

    async def _read(self, store: ControlStore, after: Position) -> Position:
        writes = await store.writes(after)
        now = time.time()
        if writes is None:
            # What it had seen last is lost: all since the start once more.
            writes = await store.writes(self.first.position) or []
        for write in writes:
            self.seen.setdefault(write.position.write_id, now)
        return writes[-1].position if writes else after

    async def _log(self) -> list[Write] | None:
        store = open_control_store(self._url)
        try:
            return await store.writes(self.first.position)
        finally:
            await store.close()
