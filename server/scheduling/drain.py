"""The end of a server, in order: no new requests, then the running ones finish, then the process ends.

Invariant: a request that was begun before the drain is finished, unless the grace period ends first; one that comes later is told at once
that this server is going away, so that its client asks another.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import EngineUnavailable

_LOOK_SECONDS = 0.02


class Drain:
    """Whether the server is on its way out, and how many recommendation requests are running."""

    def __init__(self) -> None:
        self.draining = False
        self.running = 0

    def begin(self) -> None:
        """Lets nobody in from now on."""
        self.draining = True

    def check(self) -> None:
        """Whether the server still takes requests.

        Raises:
            EngineUnavailable: it does not.
        """
        if self.draining:
            raise EngineUnavailable("The server is shutting down.", 1)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts a request for as long as it runs.

        Raises:
            EngineUnavailable: the server takes none any more.
        """
        self.check()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    async def finished(self, seconds: float) -> bool:
        """Waits until nothing runs, for so long at most; whether it came to that."""
        end = asyncio.get_running_loop().time() + seconds
        while self.running and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_LOOK_SECONDS)
        return not self.running
