"""The engine's supervisor in the API process: starts the engine process, notices its death or that it hangs, and starts another.

Invariant: there is at most one engine process, and those who ask are told when it is ready and when it is gone, for whatever reason. A
process that gives no sign of life is killed (`server.engine.heartbeat`), so that no request waits for an engine that hangs.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from server.engine.arrival import Arrival
from server.engine.backoff import HEALTHY_SECONDS, Backoff
from server.engine.heartbeat import Heartbeat, Patience, watch
from server.engine.process import EngineProcess, Obstacle
from server.engine.watch import CatalogWatch
from server.engine_settings import EngineOptions
from server.messages import CatalogLoaded, FromEngine, Progress, Ready, StartFailure, ToEngine
from server.metrics.registry import Metrics
from server.try_again import EngineUnavailable

logger = logging.getLogger(__name__)

WORKER_MODULE = "server.engine.main"
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0
STARTS_WITHOUT_READY = 3
LAST_SENTENCE_SECONDS = 0.5
# Until an engine has been ready once.
LOAD_SECONDS_GUESS = 10.0
PATIENCE = Patience()


class EngineStatus(Enum):
    """Where the engine stands."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


class EngineListener(Protocol):
    """Whoever asks something of the engine, and is told what becomes of it."""

    def engine_ready(self, ready: Ready) -> None:
        """Take note that an engine is ready, and told everything from now on."""

    def engine_answered(self, answer: Progress | CatalogLoaded) -> None:
        """Take what the engine has to say of what it was asked."""

    def engine_gone(self, end: str, retry_after_seconds: int) -> None:
        """Take note that an engine is gone, and will not answer any more.

        Args:
            end: what it did, as in "The engine died".
            retry_after_seconds: until another may be ready.
        """


class EngineSupervisor:
    """Keeps one engine process running; lives in the API process's event loop.

    Attributes:
        status: where the engine stands.
        engine: the process that is told what is asked; None while none is ready.
        ready: what the last engine that became ready said of itself; None before the first.
        heartbeat: the silence of the process that runs, or was the last.
        watch: told how engines fare with their catalogs.
    """

    def __init__(
        self,
        options: EngineOptions,
        catalog_version: str,
        metrics: Metrics,
        listener: EngineListener,
        *,
        patience: Patience = PATIENCE,
        on_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Args:
            catalog_version: the version whose indices the requests will name.
            patience: how long an engine may be silent before another is started.
            on_failure: called with a sentence when the engine can't start the first time; later it is tried again for ever.
        """
        self._options = options
        self._catalog_version = catalog_version
        self._metrics = metrics
        self._listener = listener
        self._patience = patience
        self._on_failure = on_failure
        self._process: EngineProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._load_seconds = LOAD_SECONDS_GUESS
        # Since when no engine has served for long; None before the first. And since when the newest serves, or did.
        self._gone_since: float | None = None
        self._serves_since = 0.0
        metrics.engine_overdue.set_function(lambda: self.overdue_seconds)
        self._backoff = Backoff(FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
        self._obstacle: Obstacle | None = None
        self._end = "died"
        self.status = EngineStatus.STOPPED
        self.engine: EngineProcess | None = None
        self.ready: Ready | None = None
        self.heartbeat = Heartbeat(patience, 0.0)
        self.watch = CatalogWatch()

    @property
    def is_silent(self) -> bool:
        """True if the engine serves, as far as is known, but has given no sign of life for a while."""
        return self.status is EngineStatus.READY and self.heartbeat.suspect

    @property
    def overdue_seconds(self) -> float:
        """Seconds without an engine that lasts, beyond what the last one took to be ready; 0 while one serves, and before the first.

        One that served for less than a minute does not count.
        """
        if self.engine is not None or self._gone_since is None:
            return 0.0
        return max(0.0, time.monotonic() - self._gone_since - self._load_seconds)

    def check(self) -> Ready:
        """What the engine has told of itself, if it takes requests now.

        Raises:
            EngineUnavailable: there is none, or it is silent.
        """
        if self.ready is None or self.status is not EngineStatus.READY or self.is_silent:
            raise self.unavailable()
        return self.ready

    def unavailable(self) -> EngineUnavailable:
        """The error for clients while the engine is not ready."""
        if self.is_silent:
            return EngineUnavailable("The engine gives no sign of life; if that goes on, another is started.")
        sentence = {
            EngineStatus.STARTING: "The engine is still loading the model.",
            EngineStatus.STOPPED: "The server is shutting down.",
            EngineStatus.FAILED: "The engine can't start.",
        }.get(self.status, self._obstacle.public if self._obstacle else f"The engine is being restarted after it {self._end}.")
        return EngineUnavailable(sentence, max(1, round(self._backoff.seconds + self._load_seconds)))

    def start(self) -> None:
        """Start the engine in the background; `status` tells when it is ready."""
        self.status = EngineStatus.STARTING
        self._task = asyncio.create_task(self._supervise(), name="engine supervisor")
        self._task.add_done_callback(self._on_end)

    async def stop(self) -> None:
        """Stop the engine process and wait until it is gone."""
        self.status = EngineStatus.STOPPED
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def tell(self, message: ToEngine) -> None:
        """Send a message, if an engine is ready; who waits for its answer is told when the engine is gone."""
        if self.engine is not None:
            self.engine.send(message)

    def serve_catalog(self, handle: str, path: Path, version: str) -> None:
        """Say which catalog engines that are started from now on load, what they call it, and the version of its contents."""
        self._options = self._options.model_copy(update={"catalog": path, "catalog_handle": handle})
        self._catalog_version = version

    def replace(self) -> None:
        """End the engine, which lacks the catalog that is to be served; the next one loads it."""
        if self.engine is not None:
            self.engine.kill()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        # Without its supervisor the server would look alive and never have an engine again.
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the engine's supervisor failed", exc_info=error)
            self._fail(f"The engine process can't be kept running: {error}.")

    def _fail(self, sentence: str) -> None:
        self.status = EngineStatus.FAILED
        self._on_failure(sentence)

    async def _supervise(self) -> None:
        """Run one engine process after the other until it is stopped or the first start fails."""
        fruitless = 0
        while True:
            await self.watch.engine_starts()
            started = time.monotonic()
            handle = self._options.catalog_handle
            obstacle = await self._run_once()
            await self.watch.engine_ended(handle, blamed=obstacle is not None and obstacle.is_catalog, silence=self.heartbeat.silence)
            if self._options.catalog_handle != handle:
                # The next engine loads another catalog, and may fare better.
                fruitless, obstacle = 0, None
                self._backoff.reset()
            elif self.ready is None:
                fruitless += 1
                if obstacle is not None:
                    return self._fail(obstacle.sentence)
                if fruitless >= STARTS_WITHOUT_READY:
                    return self._fail(f"The engine process died {fruitless} times before it was ready; the log above says how.")
            # An engine that has been ready can be ready again: memory that a killed one held is freed, a file server comes back.
            self._obstacle, self.status = obstacle, EngineStatus.RESTARTING
            if obstacle is not None:
                logger.error("the engine can't be restarted yet: %s", obstacle.sentence)
            pause = self._backoff.after(time.monotonic() - started)
            logger.warning("starting another engine process in %.1f s", pause)
            await asyncio.sleep(pause)
            self._metrics.engine_restarts.inc()

    async def _run_once(self) -> Obstacle | None:
        """Run one engine process from its start to its end; return what kept it from serving, if that is known."""
        obstacle: asyncio.Future[Obstacle] = asyncio.get_running_loop().create_future()
        started = time.monotonic()
        self.heartbeat = Heartbeat(self._patience, started)
        arrival = Arrival(self._catalog_version)

        def receive(message: FromEngine) -> None:
            if self._process is None or obstacle.done():
                # It was given up: what it had still sent does not make it ready, and its silence before counts.
                return
            self.heartbeat.heard(message)
            if (found := self._receive(message, arrival, time.monotonic() - started)) is not None:
                obstacle.set_result(found)

        try:
            async with EngineProcess.start(WORKER_MODULE, self._options, receive) as self._process:
                try:
                    return await self._accompany(self._process, obstacle)
                finally:
                    engine, self.engine, self._process = self.engine, None, None
                    self._abandon()
                    if engine is not None:
                        self._note_gone()
                        await engine.stop()
        except OSError as error:
            return Obstacle(f"The engine process can't be started: {error}.")

    async def _accompany(self, process: EngineProcess, obstacle: "asyncio.Future[Obstacle]") -> Obstacle | None:
        """Wait until a process ends or can't serve."""
        either: set[asyncio.Future[Any]] = {obstacle, process.exit_status}
        if await watch(self.heartbeat, either, self._metrics.engine_silence.set):
            self._end = "hung"
            self._metrics.engine_hangs.inc()
            logger.error("the engine process %d %s, and is killed", process.pid, self.heartbeat.sentence)
            process.kill()
            return None
        if self.engine is None:
            # A process that fails to start says why and ends; its end can be noticed before its sentence.
            await asyncio.wait({obstacle}, timeout=LAST_SENTENCE_SECONDS)
        if obstacle.done():
            return obstacle.result()
        self._end = "died"
        logger.error("the engine process %d ended with status %s", process.pid, process.exit_status.result())
        return None

    def _receive(self, message: FromEngine, arrival: Arrival, seconds: float) -> Obstacle | None:
        """Take a message from an engine process that was started `seconds` ago; returns why it can't serve, if it says so."""
        match message:
            case Progress() as progress:
                self._metrics.observe_progress(progress)
                self._listener.engine_answered(progress)
            case CatalogLoaded() if self.engine is not None:
                self._listener.engine_answered(message)
            case Ready() | CatalogLoaded() if self._process is not None:
                ready = arrival.hear(message, self._options, self._catalog_version, self._process.send)
                if not isinstance(ready, Ready):
                    return ready
                self._load_seconds, self._serves_since = seconds, time.monotonic()
                self.watch.engine_ready(ready.catalog_handle)
                self.engine, self.ready, self.status, self._obstacle = self._process, ready, EngineStatus.READY, None
                self._listener.engine_ready(ready)
                self._metrics.observe_ready(ready, has_draft=self._options.draft is not None)
            case StartFailure(sentence, is_catalog):
                return Obstacle(sentence, is_catalog=is_catalog)
        return None

    def _note_gone(self) -> None:
        """Note that an engine that was ready is gone."""
        now = time.monotonic()
        if self._gone_since is None or now - self._serves_since > HEALTHY_SECONDS:
            self._gone_since = now

    def _abandon(self) -> None:
        """Tell all that wait for the engine that it is gone."""
        if self.status is EngineStatus.READY:
            self.status = EngineStatus.RESTARTING
        self._metrics.observe_engine_gone()
        self._listener.engine_gone(self._end, max(1, round(self._load_seconds)))
