"""The engine's supervisor in the API process: starts the engine process, talks to it, notices its death and starts another.

Invariant: every request that was given to the engine ends exactly once: with its list, its failure or its caller's cancellation, or with
`EngineUnavailable` the moment the engine is gone. Whatever waits for an answer of the engine has a deadline, and an engine that gives no
sign of life is killed (`server.engine.heartbeat`), so that nobody waits for one that hangs.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from server.engine.answers import OwedAnswers
from server.engine.arrival import Arrival
from server.engine.heartbeat import Heartbeat, Patience, watch
from server.engine.process import EngineProcess, Obstacle
from server.engine.watch import CatalogWatch
from server.engine_settings import EngineOptions
from server.errors import CatalogRefused, EngineUnavailable
from server.messages import (
    Cancel,
    CatalogLoaded,
    DropCatalog,
    DropFilter,
    FinishedList,
    ForgetUser,
    FromEngine,
    LoadCatalog,
    Progress,
    PutFilter,
    Ready,
    StartFailure,
    Submit,
    ToEngine,
)
from server.metrics.registry import Metrics
from server.scheduling.admission import Admission
from server.scheduling.pending import PendingRequest

logger = logging.getLogger(__name__)

WORKER_MODULE = "server.engine.main"
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.5, 30.0
HEALTHY_SECONDS = 60.0
STARTS_WITHOUT_READY = 3
LAST_SENTENCE_SECONDS, LOAD_SECONDS_GUESS, CATALOG_SECONDS = 0.5, 10.0, 600.0
PATIENCE = Patience()


class EngineStatus(Enum):
    """Where the engine stands."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


class EngineClient:
    """Keeps one engine process running and gives it requests; lives in the API process's event loop."""

    def __init__(
        self,
        options: EngineOptions,
        catalog_version: str,
        metrics: Metrics,
        *,
        max_pending: int,
        patience: Patience = PATIENCE,
        on_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Args:
            catalog_version: the version whose indices the requests will name.
            max_pending: requests that may be in the engine's hands, waiting and running together.
            patience: with an engine that is silent, before another is started.
            on_failure: called with a sentence when the engine can't start the first time; later it is tried again for ever.
        """
        self._options = options
        self._catalog_version = catalog_version
        self._metrics = metrics
        self._patience = patience
        self._on_failure = on_failure
        self._admission = Admission(max_pending)
        metrics.expected_wait.set_function(lambda: self._admission.wait_seconds)
        self._process: EngineProcess | None = None
        self._engine: EngineProcess | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._filters: dict[str, dict[str, PutFilter]] = {}
        self._loading = OwedAnswers()
        self._load_seconds = LOAD_SECONDS_GUESS
        self._backoff = 0.0
        self._obstacle: Obstacle | None = None
        self.heartbeat = Heartbeat(patience, 0.0)
        self._end = "died"
        self.status = EngineStatus.STOPPED
        self.ready: Ready | None = None
        self.watch = CatalogWatch()

    @property
    def process_id(self) -> int | None:
        """The engine process, if one runs."""
        return None if self._process is None else self._process.pid

    @property
    def is_silent(self) -> bool:
        """True if the engine serves, as far as is known, but has given no sign of life for a while."""
        return self.status is EngineStatus.READY and self.heartbeat.suspect

    def start(self) -> None:
        """Start the engine in the background; `status` tells when it is ready."""
        self.status = EngineStatus.STARTING
        self._supervisor = asyncio.create_task(self._supervise(), name="engine supervisor")
        self._supervisor.add_done_callback(self._on_supervisor_end)

    async def stop(self) -> None:
        """Stop the engine process and wait until it is gone."""
        self.status = EngineStatus.STOPPED
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})

    def _on_supervisor_end(self, supervisor: asyncio.Task[None]) -> None:
        # Without its supervisor the server would look alive and never have an engine again.
        if not supervisor.cancelled() and (error := supervisor.exception()) is not None:
            logger.error("the engine's supervisor failed", exc_info=error)
            self._fail(f"The engine process can't be kept running: {error}.")

    def _fail(self, sentence: str) -> None:
        self.status = EngineStatus.FAILED
        self._on_failure(sentence)

    @contextmanager
    def admit(self, submit: Submit, items: int | None = None, *, traced: bool = False) -> Iterator[PendingRequest]:
        """Let a request in or refuse it, before its stored history is read; it is pending for as long as the context lasts.

        Args:
            items: length of its history; None where it is not known yet.
            traced: True if the engine's steps are recorded for it.

        Raises:
            EngineUnavailable: there is no engine, or it is silent.
            QueueFull: too many requests are pending.
            TooLate: its list, or another because of it, would be late.
        """
        if self._engine is None or self.ready is None or self.status is not EngineStatus.READY or self.is_silent:
            raise self.unavailable()
        request = self._admission.admit(submit, time.monotonic(), items and min(items, self.ready.max_items + 1), traced=traced)
        try:
            yield request
        finally:
            self._admission.leave(request)

    async def search(self, request: PendingRequest) -> FinishedList:
        """Give an admitted request to the engine and wait for its list; cancelling the wait cancels the request.

        Raises:
            EngineUnavailable: the engine died before the list was finished.
            RequestRefused: the engine can't do this request.
            TimeoutError: the engine dropped it, because its deadline had passed.
        """
        result, engine = self._admission.hand_over(request), self._engine
        try:
            self.tell(request.submit)
            return await result
        except asyncio.CancelledError:
            if engine is self._engine:
                self.tell(Cancel(request.submit.request_id))
            raise

    async def load_catalog(self, name: str, path: Path) -> None:
        """Have the engine load another catalog beside those that it serves.

        Raises:
            EngineUnavailable: there is no engine, or it died meanwhile.
            CatalogRefused: it can't be served, or takes too long; the message is a sentence.
        """
        if self._engine is None or self.status is not EngineStatus.READY:
            raise self.unavailable()
        self.tell(LoadCatalog(name, str(path)))
        try:
            await self._loading.wait(name, CATALOG_SECONDS)
        except (TimeoutError, asyncio.CancelledError) as end:
            self.tell(DropCatalog(name))
            if isinstance(end, asyncio.CancelledError):
                raise
            raise CatalogRefused(f"The engine has not loaded the catalog within {CATALOG_SECONDS:g} s.") from end

    def drop_catalog(self, name: str) -> None:
        """Tell the engine that no request will name a catalog any more."""
        self._filters.pop(name, None)
        self.tell(DropCatalog(name))

    def serve_catalog(self, name: str, path: Path, version: str) -> None:
        """Name the catalog that engines started from now on load, and its version."""
        self._options = self._options.model_copy(update={"catalog": path, "catalog_name": name})
        self._catalog_version = version

    def put_filter(self, message: PutFilter) -> None:
        """Name a filter in this engine and, as long as its catalog is served, in every engine after it."""
        self._filters.setdefault(message.catalog, {})[message.name] = message
        self.tell(message)

    def drop_filter(self, message: DropFilter) -> None:
        """Forget a filter."""
        self._filters.get(message.catalog, {}).pop(message.name, None)
        self.tell(message)

    def forget(self, user: str) -> None:
        """Keep nothing of what was computed for a user, nor of what is for those of their requests that are under way."""
        self._admission.forget(user)
        self.tell(ForgetUser(user))

    def tell(self, message: ToEngine) -> None:
        """Send a message; what waits for the engine's answer is told when the engine is gone."""
        if self._engine is not None:
            self._engine.send(message)

    def abandon(self, sentence: str) -> None:
        """Tell every pending request that no list will come."""
        self._admission.abandon(sentence, 1)

    def unavailable(self) -> EngineUnavailable:
        """The error for clients while the engine is not ready."""
        if self.is_silent:
            return EngineUnavailable("The engine gives no sign of life; if that goes on, another is started.")
        sentence = {
            EngineStatus.STARTING: "The engine is still loading the model.",
            EngineStatus.STOPPED: "The server is shutting down.",
            EngineStatus.FAILED: "The engine can't start.",
        }.get(self.status, self._obstacle.public if self._obstacle else f"The engine is being restarted after it {self._end}.")
        return EngineUnavailable(sentence, max(1, round(self._backoff + self._load_seconds)))

    async def _supervise(self) -> None:
        """Run one engine process after the other until the client is stopped or the first start fails."""
        fruitless = 0
        while True:
            started = time.monotonic()
            catalog = self._options.catalog_name
            obstacle = await self._run_once()
            await self.watch.engine_ended(catalog, blamed=obstacle is not None and obstacle.is_catalog, silence=self.heartbeat.silence)
            if self._options.catalog_name != catalog:
                # The next engine loads another catalog, and may fare better.
                fruitless, self._backoff, obstacle = 0, 0.0, None
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
            if time.monotonic() - started > HEALTHY_SECONDS:
                self._backoff = 0.0
            self._backoff = min(max(2 * self._backoff, FIRST_BACKOFF_SECONDS), LONGEST_BACKOFF_SECONDS)
            logger.warning("starting another engine process in %.1f s", self._backoff)
            await asyncio.sleep(self._backoff)
            self._metrics.engine_restarts.inc()

    async def _run_once(self) -> Obstacle | None:
        """Run one engine process from its start to its end; return what kept it from serving, if that is known."""
        obstacle: asyncio.Future[Obstacle] = asyncio.get_running_loop().create_future()
        started = time.monotonic()
        self.heartbeat = Heartbeat(self._patience, started)
        arrival = Arrival(self._catalog_version)

        def receive(message: FromEngine) -> None:
            self.heartbeat.heard(message)
            if not obstacle.done() and (found := self._receive(message, arrival, time.monotonic() - started)) is not None:
                obstacle.set_result(found)

        try:
            async with EngineProcess.start(WORKER_MODULE, self._options, receive) as self._process:
                try:
                    return await self._accompany(self._process, obstacle)
                finally:
                    engine, self._engine = self._engine, None
                    self._abandon()
                    if engine is not None:
                        await engine.stop()
        except OSError as error:
            return Obstacle(f"The engine process can't be started: {error}.")
        finally:
            self._process = None

    async def _accompany(self, process: EngineProcess, obstacle: "asyncio.Future[Obstacle]") -> Obstacle | None:
        """Wait until a process ends or can't serve."""
        either: set[asyncio.Future[Any]] = {obstacle, process.exit_status}
        if await watch(self.heartbeat, either, self._metrics.engine_silence.set):
            self._end = "hung"
            self._metrics.engine_hangs.inc()
            logger.error("the engine process %d %s, and is killed", process.pid, self.heartbeat.sentence)
            process.kill()
            return None
        if self._engine is None:
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
                self._admission.deliver(progress)
            case CatalogLoaded(name, sentence) if self._engine is not None:
                self._loading.settle(name, None if sentence is None else CatalogRefused(sentence))
            case Ready() | CatalogLoaded() if self._process is not None:
                ready = arrival.hear(message, self._options, self._catalog_version, self._process.send)
                if not isinstance(ready, Ready):
                    return ready
                self._load_seconds = seconds
                self.watch.engine_ready(ready.catalog_name)
                self._engine, self.ready, self.status, self._obstacle = self._process, ready, EngineStatus.READY, None
                for put in self._filters.get(self._options.catalog_name, {}).values():
                    self.tell(put)
                self._admission.open(ready)
                self._metrics.observe_ready(ready, has_draft=self._options.draft is not None)
            case StartFailure(sentence, is_catalog):
                return Obstacle(sentence, is_catalog=is_catalog)
        return None

    def _abandon(self) -> None:
        """Tell all that wait for the engine that it is gone."""
        if self.status is EngineStatus.READY:
            self.status = EngineStatus.RESTARTING
        self._metrics.observe_engine_gone()
        self._loading.settle_all(self.unavailable())
        self._admission.abandon(f"The engine {self._end} while it worked on this request.", max(1, round(self._load_seconds)))
