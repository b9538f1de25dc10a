"""The prompt builders of the API process, one for each version of the catalog that is served.

Invariant: a prompt is built with what the engine has that it is for. A builder is made once, in a thread, and all who need it meanwhile
wait for the same one. What the tokenizers library reads of a file it reads without letting another thread run, so that is done once, when
the first engine is ready; an engine that is started later has the same files as a rule.
"""

import asyncio
from contextlib import suppress
from weakref import WeakKeyDictionary

from drafting.prompts.builder import PromptBuilder
from server.catalogs.store import CatalogStore, ServedCatalog
from server.engine.client import EngineClient
from server.engine.prompts import PromptSource
from server.errors import EngineUnavailable

LOOK_SECONDS = 0.25


class CatalogPrompts:
    """Builders by version."""

    def __init__(self, catalogs: CatalogStore, engine: EngineClient) -> None:
        self._catalogs, self._engine = catalogs, engine
        self._source: asyncio.Task[PromptSource] | None = None
        self._digest = ""
        self._builders: WeakKeyDictionary[ServedCatalog, asyncio.Task[PromptBuilder]] = WeakKeyDictionary()

    async def builder(self, served: ServedCatalog) -> PromptBuilder | None:
        """The builder of a version; None while there is no engine, or where it builds its prompts by itself.

        Raises:
            EngineUnavailable: the engine died before its files were read.
        """
        files = None if self._engine.ready is None else self._engine.ready.prompts
        if files is None:
            return None
        if files.digest != self._digest:
            self._builders.clear()
            self._digest, self._source = files.digest, asyncio.create_task(asyncio.to_thread(PromptSource, files))
        assert self._source is not None
        if (task := self._builders.get(served)) is None:
            task = self._builders[served] = asyncio.create_task(self._build(self._source, served))
        try:
            return await asyncio.shield(task)
        except OSError as error:
            self._digest = ""
            raise self._engine.unavailable() from error

    async def watch(self) -> None:
        """Make the builder of the version that is served as soon as there is an engine, before anybody asks for it; until cancelled."""
        while True:
            with suppress(EngineUnavailable):
                await self.builder(self._catalogs.active)
            await asyncio.sleep(LOOK_SECONDS)

    async def _build(self, source: "asyncio.Task[PromptSource]", served: ServedCatalog) -> PromptBuilder:
        return await asyncio.to_thread((await source).builder, served.catalog)
