"""The engine's client in the API process: requests and what else is asked of the engine, and the answers to them.

Invariant: every request that was given to the engine ends exactly once: with its list, its failure or its caller's cancellation, or with
`EngineUnavailable` the moment the engine is gone. Everything else that waits for an answer of the engine has a deadline, so nothing waits
forever for an engine that hangs; `server.engine.supervisor` finds out that it does.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from server.engine.answers import OwedAnswers
from server.engine.heartbeat import Patience
from server.engine.supervisor import PATIENCE, EngineStatus, EngineSupervisor
from server.engine_settings import EngineOptions
from server.errors import CatalogRefused
from server.messages import (
    Cancel,
    CatalogLoaded,
    DropCatalog,
    DropFilter,
    FinishedList,
    ForgetUser,
    LoadCatalog,
    Progress,
    PutFilter,
    Ready,
)
from server.metrics.registry import Metrics
from server.scheduling.admission import Admission
from server.scheduling.pending import PendingRequest
from server.submit import Submit

CATALOG_SECONDS = 600.0


class EngineClient:
    """Gives requests to the engine process that its supervisor keeps running; lives in the API process's event loop.

    Attributes:
        supervisor: keeps the engine process running, and knows its state.
        model_paths: directories of its models, which its refusals name; None for those that it has not.
    """

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
            max_pending: requests that may be in the engine's hands, waiting and running together.

        All other arguments are those of `EngineSupervisor`.
        """
        self.supervisor = EngineSupervisor(options, catalog_version, metrics, self, patience=patience, on_failure=on_failure)
        self.model_paths = options.target, options.draft, options.base, options.draft_base
        self._admission = Admission(max_pending)
        metrics.expected_wait.set_function(lambda: self._admission.wait_seconds)
        self._filters: dict[str, dict[str, PutFilter]] = {}
        # Filters that are forgotten as soon as no pending request names them.
        self._unwanted: set[DropFilter] = set()
        self._loading = OwedAnswers()
        # Handles of the catalogs that the engine has loaded.
        self._catalogs: set[str] = set()

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
        ready = self.supervisor.check()
        request = self._admission.admit(submit, time.monotonic(), items and min(items, ready.max_items + 1), traced=traced)
        try:
            yield request
        finally:
            self._admission.leave(request)
            if self._unwanted:
                self._drop_unwanted()

    async def search(self, request: PendingRequest) -> FinishedList:
        """Give an admitted request to the engine and wait for its list; cancelling the wait cancels the request.

        Raises:
            EngineUnavailable: the engine died before the list was finished.
            RequestRefused: the engine can't do this request.
            TimeoutError: the engine dropped it, because its deadline had passed.
        """
        result, engine = self._admission.hand_over(request), self.supervisor.engine
        try:
            self.supervisor.tell(request.submit)
            return await result
        except asyncio.CancelledError:
            if engine is self.supervisor.engine:
                self.supervisor.tell(Cancel(request.submit.request_id))
            raise

    async def load_catalog(self, handle: str, path: Path) -> None:
        """Have the engine load another catalog beside those that it serves, under a handle.

        Raises:
            EngineUnavailable: there is no engine, or it died meanwhile.
            CatalogRefused: it can't be served, or takes too long; the message is a sentence.
        """
        if self.supervisor.status is not EngineStatus.READY:
            raise self.supervisor.unavailable()
        self.supervisor.tell(LoadCatalog(handle, str(path)))
        try:
            await self._loading.wait(handle, CATALOG_SECONDS)
        except (TimeoutError, asyncio.CancelledError) as end:
            self.supervisor.tell(DropCatalog(handle))
            if isinstance(end, asyncio.CancelledError):
                raise
            raise CatalogRefused(f"The engine has not loaded the catalog within {CATALOG_SECONDS:g} s.") from end

    def lacks(self, handle: str) -> bool:
        """True if there is an engine, and it has not loaded a catalog."""
        return self.supervisor.engine is not None and handle not in self._catalogs

    def drop_catalog(self, handle: str) -> None:
        """Tell the engine that no request will name a catalog any more."""
        self._filters.pop(handle, None)
        self._catalogs.discard(handle)
        self.supervisor.tell(DropCatalog(handle))

    def put_filter(self, message: PutFilter) -> None:
        """Name a filter in this engine and, as long as its catalog is served, in every engine after it."""
        self._unwanted.discard(DropFilter(message.catalog, message.name))
        self._filters.setdefault(message.catalog, {})[message.name] = message
        self.supervisor.tell(message)

    def drop_filter(self, message: DropFilter) -> None:
        """Forget a filter, once no pending request names it: the engine may be given one of them only after its history is read."""
        self._unwanted.add(message)
        self._drop_unwanted()

    def _drop_unwanted(self) -> None:
        for message in [each for each in self._unwanted if not self._admission.names_filter(each.catalog, each.name)]:
            self._unwanted.remove(message)
            self._filters.get(message.catalog, {}).pop(message.name, None)
            self.supervisor.tell(message)

    def forget(self, user: str) -> None:
        """Keep nothing of what was computed for a user, nor of what is for those of their requests that are under way."""
        self._admission.forget(user)
        self.supervisor.tell(ForgetUser(user))

    def abandon(self, sentence: str) -> None:
        """Tell every pending request that no list will come."""
        self._admission.abandon(sentence, 1)

    def engine_ready(self, ready: Ready) -> None:
        """Take requests for an engine that has become ready, once it has been told the filters that they may name."""
        self._catalogs = {ready.catalog_handle}
        for put in self._filters.get(ready.catalog_handle, {}).values():
            self.supervisor.tell(put)
        self._admission.open(ready)

    def engine_answered(self, answer: Progress | CatalogLoaded) -> None:
        """Hand on what the engine has to say of what it was asked."""
        match answer:
            case Progress() as progress:
                self._admission.deliver(progress)
            case CatalogLoaded(handle, sentence):
                if sentence is None:
                    self._catalogs.add(handle)
                self._loading.settle(handle, None if sentence is None else CatalogRefused(sentence))

    def engine_gone(self, end: str, retry_after_seconds: int) -> None:
        """Tell all that wait for the engine that it is gone."""
        self._loading.settle_all(self.supervisor.unavailable())
        self._admission.abandon(f"The engine {end} while it worked on this request.", retry_after_seconds)
