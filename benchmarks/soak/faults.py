"""The faults of a soak, each with the time until the server is itself again.

Invariant: a fault ends before its method returns: what was stopped goes on or is replaced, what was filled is empty again. A server that
does not come back in time has broken a promise, and is helped so that the run goes on.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import psutil
from redis import Redis

from benchmarks.server_process import answers as answers_well
from benchmarks.soak.answers import Answers, Promise
from benchmarks.soak.disk import SmallDisk
from benchmarks.soak.trial import RedisProcess, Trial

# The longest time from when a server knows that it needs another engine until that one serves.
RETURN_SECONDS = 60.0
# A stop that an engine is forgiven, as a share of the hang limit.
PAUSE_SHARE = 0.3
# A slow store makes each command wait up to so long.
SLOW_MS = 120
_LOOK_SECONDS = 0.1


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault.

    Attributes:
        at: seconds since the soak began.
        seconds: how long it took until the server was itself again.
    """

    kind: str
    at: float
    seconds: float


class FaultInjector:
    """Harms one server.

    Attributes:
        faults: what was done, in order.
    """

    def __init__(self, trial: Trial, redis: RedisProcess, disk: SmallDisk, answers: Answers, hang_seconds: float) -> None:
        self._trial, self._redis, self._disk, self._answers = trial, redis, disk, answers
        self._hang_seconds = hang_seconds
        self.faults: list[Fault] = []

    async def kill_engine(self) -> None:
        """Kill the engine, as the kernel does when memory is short."""
        engine = self._trial.server.engine
        async with self._noted("engine killed"):
            engine.kill()
            await self._wait_for_another(engine, RETURN_SECONDS)

    async def hang_engine(self) -> None:
        """Stop the engine for good; the server must notice and replace it."""
        engine = self._trial.server.engine
        async with self._noted("engine hung"):
            engine.suspend()
            await self._wait_for_another(engine, self._hang_seconds + RETURN_SECONDS)
            if engine.is_running():
                engine.resume()

    async def pause_engine(self) -> None:
        """Stop the engine for less than the hang limit; it must be the same one afterwards."""
        engine = self._trial.server.engine
        async with self._noted("engine paused"):
            engine.suspend()
            await asyncio.sleep(PAUSE_SHARE * self._hang_seconds)
            if engine.is_running():
                engine.resume()
            else:
                self._answers.complain(Promise.LIVENESS, "An engine that had stopped for less than the hang limit was replaced.")

    async def kill_api(self) -> None:
        """Kill the API process and start it again."""
        async with self._noted("API killed"):
            if not await asyncio.to_thread(self._trial.restart_killed):
                self._answers.complain(Promise.LIVENESS, "An engine outlived its API process.")

    async def fill_disk(self, seconds: float) -> None:
        """Leave no room for versions for a while."""
        if not self._disk.can_fill:
            return
        async with self._noted("disk full"):
            try:
                self._disk.fill()
                await asyncio.sleep(seconds)
            finally:
                self._disk.free()

    async def stall_redis(self, seconds: float) -> None:
        """Stop the history store for a while; connections stay open."""
        store = psutil.Process(self._redis.process.pid)
        async with self._noted("Redis stalled"):
            store.suspend()
            try:
                await asyncio.sleep(seconds)
            finally:
                store.resume()

    async def slow_redis(self, seconds: float) -> None:
        """Let every command of the history store wait for up to `SLOW_MS`."""
        until = time.monotonic() + seconds
        async with self._noted("Redis slow"):
            with Redis(port=self._redis.port) as control:
                while time.monotonic() < until:
                    await asyncio.to_thread(control.client_pause, SLOW_MS)
                    await asyncio.sleep(1.2 * SLOW_MS / 1000)

    async def _wait_for_another(self, engine: psutil.Process, seconds: float) -> None:
        """Wait until another engine serves."""

        def serves() -> bool:
            children = psutil.Process(self._trial.server.process.pid).children()
            return engine not in children and answers_well(self._trial.server.client, "/ready")

        until = time.monotonic() + seconds
        while not await asyncio.to_thread(serves):
            if time.monotonic() > until:
                return self._answers.complain(Promise.LIVENESS, f"No other engine served within {seconds:.0f} s.")
            await asyncio.sleep(_LOOK_SECONDS)

    @asynccontextmanager
    async def _noted(self, kind: str) -> AsyncIterator[None]:
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        self.faults.append(Fault(kind=kind, at=round(began - self._answers.started, 1), seconds=round(took, 1)))
