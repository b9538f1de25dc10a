"""The end of a server, in order: no new requests, then the running ones finish, then the process ends.

Invariant: a request that was begun before is finished, unless the grace period ends first; one that comes later is told at once that this
server is going away, so that its client asks another.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from server.try_again import EngineUnavailable

T = TypeVar("T")

_LOOK_SECONDS = 0.02


class Drain:
    """The requests that a server still has, and whether it takes more.

    Attributes:
        is_ending: True once the server takes no more.
        running: number of requests that run.
    """

    def __init__(self) -> None:
        self.is_ending = False
        self.running = 0
        # Work that may take longer than the end of a server can wait for: it is cancelled when the end begins.
        self._long: set[asyncio.Task[Any]] = set()

    def begin(self) -> None:
        """Take no requests from now on, and cancel the work that may take long."""
        self.is_ending = True
        for task in self._long:
            task.cancel()

    def check(self) -> None:
        """Refuse a request once the server takes none any more.

        Raises:
            EngineUnavailable: it takes none.
        """
        if self.is_ending:
            raise EngineUnavailable("The server is shutting down.", 1)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request for as long as it runs.

        Raises:
            EngineUnavailable: the server takes none any more.
        """
        self.check()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    async def long(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do work that may take longer than the end of a server can wait for: when the end begins, it is cancelled, and cleans up.

        Raises:
            EngineUnavailable: the server takes no requests any more.
        """
        with self.request():
            task = asyncio.create_task(work())
            self._long.add(task)
            try:
                return await task
            except asyncio.CancelledError:
                self.check()
                raise
            finally:
                self._long.discard(task)

    async def finished(self, seconds: float) -> bool:
        """Wait until nothing runs, for so many seconds at most; True if nothing runs then."""
        end = asyncio.get_running_loop().time() + seconds
        while self.running and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_LOOK_SECONDS)
        return not self.running
