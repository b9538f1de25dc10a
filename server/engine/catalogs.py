"""The catalogs that an engine process has at hand: one as a rule, two while one takes over from the other.

Invariants: a catalog is there as a whole or not at all. It is loaded in a thread of its own while the engine goes on stepping, and joins
between two steps; a file that can't be served, or finds no memory, becomes a sentence and changes nothing. And a request runs from its
first step to its last on the engine of the catalog that it names, so it never meets an item of another one.
"""

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.freshness import ADDED_AT, added_days
from drafting.catalog.item_values import ItemValues
from drafting.catalog.loading import load_catalog
from drafting.errors import SetupError
from server.engine.filters import EngineFilters
from server.messages import CatalogLoaded
from verification.hosts.checkpoint import lacks_memory
from verification.hosts.graphs import GraphCounts
from verification.request import BeamRequest
from verification.result import StepReport
from verification.slots.engine_slots import CatalogTooLarge

if TYPE_CHECKING:
    from verification.engine.engine import SpeculativeBeamEngine
    from verification.recommender import Recommender

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineCatalog:
    """A catalog that requests may name."""

    source: "Recommender"
    filters: EngineFilters

    @classmethod
    def of(cls, source: "Recommender") -> "EngineCatalog":
        """A catalog without named filters yet; the days of its items are read here, where no step waits for it."""
        column = source.catalog.attributes.get(ADDED_AT)
        return cls(source, EngineFilters(len(source.catalog), None if column is None else added_days(column)))


class EngineCatalogs:
    """Catalogs by handle, and as one engine to the scheduler: each request runs on the engine of its catalog, all over the same slots."""

    def __init__(self, handle: str, source: "Recommender") -> None:
        self._catalogs = {handle: EngineCatalog.of(source)}
        self._newest = source
        self._loader = ThreadPoolExecutor(1, "catalog")
        self._loading: dict[str, Future[EngineCatalog]] = {}
        self._value_reader = ThreadPoolExecutor(1, "values")
        # The values of a catalog's attribute, once a request has asked for a cap on it.
        self._values: dict[tuple[str, str], Future[ItemValues]] = {}

    @property
    def loading(self) -> bool:
        """True while a catalog is being loaded, or the values of an attribute are worked out."""
        return bool(self._loading) or not all(future.done() for future in self._values.values())

    def has_values(self, handle: str, attributes: Iterable[str]) -> bool:
        """Whether the values of some attributes of a catalog are known; those that are not are worked out from now on, beside the steps."""
        if handle not in self._catalogs:
            return True
        columns = self._catalogs[handle].source.catalog.attributes
        asked = [attribute for attribute in attributes if attribute in columns]
        for attribute in asked:
            if (handle, attribute) not in self._values:
                self._values[handle, attribute] = self._value_reader.submit(_values_of, columns[attribute])
        return all(self._values[handle, attribute].done() for attribute in asked)

    def get(self, handle: str) -> EngineCatalog:
        """The catalog of a handle.

        Raises:
            ValueError: there is none.
        """
        if handle not in self._catalogs:
            raise ValueError(f"The engine has no catalog {handle!r}.")
        return self._catalogs[handle]

    def take_graph_counts(self) -> GraphCounts:
        """Forwards by CUDA graphs since this was last asked; catalogs come and go, their models stay."""
        return self._newest.take_graph_counts()

    def put_filter(self, catalog: str, name: str, bits: bytes) -> None:
        """Name a filter of a catalog; one that is gone needs none."""
        if catalog in self._catalogs:
            self._catalogs[catalog].filters.put(name, bits)

    def drop_filter(self, catalog: str, name: str) -> None:
        """Forget a filter, if it is here."""
        if catalog in self._catalogs:
            self._catalogs[catalog].filters.drop(name)

    def load(self, handle: str, path: str) -> None:
        """Begin to load a catalog; `take_loaded` tells when it is ready."""
        self._loading[handle] = self._loader.submit(_load, self._newest, handle, path)

    def put(self, handle: str, catalog: EngineCatalog) -> None:
        """Take requests for another catalog from now on; its source must be a successor of one that is here."""
        if not self._newest.engine.has_draft:
            # The draft may have failed, and been closed, while the catalog was loaded.
            catalog.source.engine.drop_draft()
        self._catalogs[handle], self._newest = catalog, catalog.source

    def drop(self, handle: str) -> None:
        """Forget a catalog, if it is here or on its way; no request that names it is left."""
        self._loading.pop(handle, None)
        self._catalogs.pop(handle, None)
        if self._catalogs and all(catalog.source is not self._newest for catalog in self._catalogs.values()):
            self._newest = list(self._catalogs.values())[-1].source
        self._values = {of: future for of, future in self._values.items() if of[0] != handle}

    def take_loaded(self) -> list[CatalogLoaded]:
        """Take in the catalogs that have been loaded, and say what became of each."""
        told = []
        for handle, future in list(self._loading.items()):
            if not future.done():
                continue
            del self._loading[handle]
            try:
                self.put(handle, future.result())
                told.append(CatalogLoaded(handle))
            except SetupError as error:
                told.append(CatalogLoaded(handle, str(error)))
        return told

    @property
    def total_slots(self) -> int:
        """Key/value slots of the model."""
        return self._newest.engine.total_slots

    @property
    def used_slots(self) -> int:
        """Key/value slots that running requests own, of all catalogs."""
        return self._newest.engine.used_slots

    @property
    def cached_slots(self) -> int:
        """Key/value slots that hold prompts of earlier requests."""
        return self._newest.engine.cached_slots

    def fits(self, request: BeamRequest) -> bool:
        """True if the request could run on an idle engine."""
        return self._engine_of(request).fits(request)

    def has_room(self, request: BeamRequest, ended: Sequence[BeamRequest] = ()) -> bool:
        """True if enough slots are free to run the request to its end now, or would be if `ended`, which run, had ended."""
        # Each by its own catalog: identifiers of another may be longer.
        engine, freed = self._engine_of(request), (self._engine_of(other).needs(other) for other in ended)
        return engine.slots.has_room(engine.needs(request), freed)

    def refusal(self, request: BeamRequest) -> str | None:
        """Why the plan can't serve the request, as a sentence; None if it can."""
        return self._engine_of(request).refusal(request)

    def tokens_needed(self, request: BeamRequest) -> int:
        """Tokens that a request adds to its first forward, drafts aside."""
        return self._engine_of(request).tokens_needed(request)

    def next_tokens(self, most_nodes: int | None = None) -> int:
        """Tokens that the running requests put into the next step, drafts aside; see `SpeculativeBeamEngine.step` for `most_nodes`."""
        return sum(engine.next_tokens(most_nodes) for engine in self._engines)

    def add(self, request: BeamRequest) -> None:
        """Start a request; see `SpeculativeBeamEngine.add`."""
        self._engine_of(request).add(request)

    def cancel(self, request_id: str) -> bool:
        """End a request without a result and free its slots; false if no such request runs."""
        return any(engine.cancel(request_id) for engine in self._engines)

    def forget(self, user: str) -> None:
        """Keep nothing of a user's requests; all catalogs share what is kept."""
        self._newest.engine.forget(user)

    def step(self, *, scored_nodes: int | None = None, most_nodes: int | None = None) -> StepReport:
        """Advance every running request, catalog by catalog; two make forwards only while the last requests of an old catalog run."""
        reports = []
        for engine in self._engines:
            reports.append(report := engine.step(scored_nodes=scored_nodes, most_nodes=most_nodes))
            if report.draft_failed:
                # The engines share the draft model, which is closed now.
                for other in self._engines:
                    other.drop_draft()
        return reports[0] if len(reports) == 1 else StepReport.sum(reports)

    def close(self) -> None:
        """Wait for what is under way and free the models, which all engines share."""
        self._loader.shutdown()
        self._value_reader.shutdown()
        self._newest.engine.close()

    @property
    def _engines(self) -> list["SpeculativeBeamEngine"]:
        return [catalog.source.engine for catalog in self._catalogs.values()]

    def _engine_of(self, request: BeamRequest) -> "SpeculativeBeamEngine":
        return self._catalogs[request.catalog].source.engine


def _values_of(column: AttributeColumn) -> ItemValues:
    return column.item_values


def _load(source: "Recommender", handle: str, path: str) -> EngineCatalog:
    try:
        return EngineCatalog.of(source.successor(load_catalog(Path(path), check=True), handle))
    except (MemoryError, RuntimeError) as error:
        # The latter is what torch raises. Nothing that runs has been touched, so whoever is served goes on.
        logger.exception("The catalog %s can't be loaded beside the others.", path)
        if lacks_memory(error):
            raise CatalogTooLarge(
                "The engine has no memory for the catalog beside the one that it serves: start a server with it."
            ) from error
        raise SetupError("The engine can't load the catalog beside the one that it serves; its log says why.") from error
