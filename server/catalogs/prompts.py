"""The prompt builders of the API process, one for each version of the catalog that is served.

Invariant: a prompt for a version is built with what the engine has for that version. A builder is made once, in a thread, and all who need
it meanwhile wait for the same one. A builder that can't be made keeps no request waiting: for `PAUSE_SECONDS` those who ask are told so,
and then it is tried again.

The tokenizers library reads files without letting another thread run. So that is done once, when the first engine is ready; an engine that
is started later has the same files as a rule.
"""

import asyncio
import logging
import math
import time
from contextlib import suppress
from functools import partial
from weakref import WeakKeyDictionary, WeakSet

from drafting.errors import quoted
from drafting.prompts.builder import PromptBuilder
from server.catalogs.served import ServedCatalog
from server.catalogs.store import CatalogStore
from server.engine.prompts import PromptSource
from server.engine.supervisor import EngineSupervisor
from server.ticks import tick
from server.try_again import EngineUnavailable

LOOK_TICKS = 2
# What has failed may fail for long, and takes a thread's time whenever it is tried.
PAUSE_SECONDS = 5.0

logger = logging.getLogger(__name__)


class CatalogPrompts:
    """Builders by version."""

    def __init__(self, catalogs: CatalogStore, supervisor: EngineSupervisor) -> None:
        self._catalogs, self._supervisor = catalogs, supervisor
        self._source: asyncio.Task[PromptSource] | None = None
        self._digest = ""
        self._builders: WeakKeyDictionary[ServedCatalog, asyncio.Task[PromptBuilder]] = WeakKeyDictionary()
        # Versions whose builder could not be made when it was last tried.
        self._failed: WeakSet[ServedCatalog] = WeakSet()

    async def builder(self, served: ServedCatalog, deadline: float = math.inf) -> PromptBuilder:
        """The builder of a version.

        Args:
            deadline: monotonic seconds, until which it is waited for.

        Raises:
            TimeoutError: it is still being made then.
            EngineUnavailable: there is no engine yet, it died before its files were read, or the builder can't be made now.
        """
        if self._supervisor.ready is None:
            raise self._supervisor.unavailable()
        files = self._supervisor.ready.prompts
        if files.digest != self._digest:
            self._builders.clear()
            self._digest, self._source = files.digest, asyncio.create_task(asyncio.to_thread(PromptSource, files))
        assert self._source is not None
        if (task := self._builders.get(served)) is None:
            task = self._builders[served] = asyncio.create_task(self._build(self._source, served))
            task.add_done_callback(partial(self._on_end, served))
        if not task.done():
            await asyncio.wait({task}, timeout=None if deadline == math.inf else max(0.0, deadline - time.monotonic()))
            if not task.done():
                raise TimeoutError("The prompt builder is still being made.")
        if (error := task.exception()) is None:
            return task.result()
        if isinstance(error, OSError):
            raise self._supervisor.unavailable() from error
        raise _no_prompts() from error

    async def prepare(self, served: ServedCatalog) -> None:
        """Make the builder of a version that is about to be served, so that no request waits for it; without an engine it is made later.

        Raises:
            EngineUnavailable: it can't be made; the sentence names the version.
        """
        try:
            await self.builder(served)
        except EngineUnavailable as error:
            if served in self._failed:
                unserved = f"The server can't make prompts for version {quoted(served.name)}, so it is not served; its log says why."
                raise EngineUnavailable(unserved, math.ceil(PAUSE_SECONDS)) from error

    def check(self) -> None:
        """Check that prompts can be made for the version that is served.

        Raises:
            EngineUnavailable: they can't, also while that is tried again.
        """
        if self._catalogs.active in self._failed:
            raise _no_prompts()

    def forget(self, user_id: str) -> None:
        """Keep nothing of a user in memory that prompts were made of."""
        for task in self._builders.values():
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().forget(user_id)

    async def watch(self) -> None:
        """Make the builder of the version that is served as soon as there is an engine, before anybody asks for it; until cancelled."""
        while True:
            with suppress(EngineUnavailable):
                await self.builder(self._catalogs.active)
            await tick(LOOK_TICKS)

    async def _build(self, source: "asyncio.Task[PromptSource]", served: ServedCatalog) -> PromptBuilder:
        return await asyncio.to_thread((await source).builder, served.catalog)

    def _on_end(self, served: ServedCatalog, task: "asyncio.Task[PromptBuilder]") -> None:
        if task.cancelled():
            return
        if (error := task.exception()) is None:
            return self._failed.discard(served)
        if isinstance(error, OSError):
            # Another engine is started, and it writes new files.
            return self._forget(served, task)
        self._failed.add(served)
        again = f"; it is tried again in {PAUSE_SECONDS:g} s" if served is self._catalogs.active else ""
        logger.error("prompts of version %s can't be made%s", served.name, again, exc_info=error)
        asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._forget, served, task)

    def _forget(self, served: ServedCatalog, task: "asyncio.Task[PromptBuilder]") -> None:
        """Forget a builder that couldn't be made, and what it should have been made of if that is why."""
        if self._builders.get(served) is not task:
            return
        del self._builders[served]
        if self._source is not None and self._source.done() and self._source.exception() is not None:
            self._digest = ""


def _no_prompts() -> EngineUnavailable:
    sentence = "The server can't make prompts for this version of the catalog now; it tries again, and its log says what is in the way."
    return EngineUnavailable(sentence, math.ceil(PAUSE_SECONDS))
