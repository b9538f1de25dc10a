"""`MemoryControlStore`: the control store of a server alone, and of tests, in which several replicas may share one.

Invariant: no method awaits between reading and changing, so each is atomic on the event loop. The log holds the write that created the
state, with no changes, so its last entry is always the position.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from server.control.base import Limits, Position, Replica, State, Write, random_name
from server.try_again import ControlConflict


class MemoryControlStore:
    """A `ControlStore` of Python objects on one event loop. It never raises `ControlUnavailable`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._values: dict[str, bytes] = {}
        self._log: deque[Write] = deque()
        self._size = 0
        self._replicas: dict[str, tuple[Replica, float]] = {}
        self._moved = asyncio.Event()

    async def create(self, values: Mapping[str, bytes]) -> State:
        if self._log:
            raise ControlConflict
        return self._begin(values, 0)

    async def replace(self, values: Mapping[str, bytes], revision: int) -> State:
        return self._begin(values, 1 + max([revision, *(write.position.revision for write in self._log)]))

    async def state(self) -> State | None:
        return State(self._log[-1].position, dict(self._values)) if self._log else None

    async def position(self) -> Position | None:
        return self._log[-1].position if self._log else None

    async def writes(self, after: Position) -> list[Write] | None:
        index = after.revision - self._log[0].position.revision if self._log else -1
        if not 0 <= index < len(self._log) or self._log[index].position != after:
            return None
        return list(self._log)[index + 1 :]

    async def write(self, after: Position, by: str, changes: Mapping[str, bytes | None]) -> Write:
        if await self.position() != after:
            raise ControlConflict
        write = Write(Position(after.generation, after.revision + 1, random_name()), time.time(), by, dict(changes))
        for key, value in changes.items():
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value
        self._append(write)
        return write

    async def wait(self, seen: Position | None, seconds: float) -> None:
        if await self.position() == seen:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._moved.wait()

    async def announce(self, replica: Replica) -> None:
        self._replicas[replica.name] = replica, time.monotonic() + self._limits.announced_seconds

    async def withdraw(self, name: str) -> None:
        self._replicas.pop(name, None)

    async def replicas(self) -> list[Replica]:
        now = time.monotonic()
        self._replicas = {name: told for name, told in self._replicas.items() if told[1] > now}
        return [self._replicas[name][0] for name in sorted(self._replicas)]

    async def close(self) -> None:
        """Do nothing: replicas in this process may share the store."""

    def _begin(self, values: Mapping[str, bytes], revision: int) -> State:
        position = Position(random_name(), revision, random_name())
        self._values = dict(values)
        self._log.clear()
        self._size = 0
        self._append(Write(position, time.time(), "", {}))
        return State(position, dict(values))

    def _append(self, write: Write) -> None:
        self._log.append(write)
        self._size += write.size
        while len(self._log) > 1 and (len(self._log) > self._limits.log_writes or self._size > self._limits.log_bytes):
            self._size -= self._log.popleft().size
        # Whoever waits has the event of the time when they came.
        self._moved.set()
        self._moved = asyncio.Event()
