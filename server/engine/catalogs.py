"""The catalogs that an engine process has at hand: one as a rule, two while one takes over from the other.

Invariant: a catalog is there as a whole or not at all. It is got ready in a thread of its own while the engine goes on stepping, and joins
between two steps; a file that can't be served becomes a sentence and changes nothing.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from drafting.beam.rule import STRICT, SearchRule
from drafting.catalog.catalog import Catalog
from drafting.catalog.freshness import ADDED_AT, added_days
from drafting.catalog.loading import load_catalog
from drafting.errors import SetupError
from drafting.plans.costs import CostCurve
from drafting.trie.item_set import ItemSet
from server.engine.filters import EngineFilters
from server.messages import CatalogLoaded
from verification.engine.group import CatalogEngine, EngineGroup
from verification.hosts.graphs import GraphCounts
from verification.request import BeamRequest, ReservedPlaces


class RequestSource(Protocol):
    """What the step loop needs of `verification.recommender.Recommender`."""

    @property
    def catalog(self) -> Catalog: ...

    @property
    def engine(self) -> CatalogEngine: ...

    @property
    def target_cost(self) -> CostCurve: ...

    def take_graph_counts(self) -> GraphCounts: ...

    def request(
        self,
        request_id: str,
        history: Sequence[int],
        k: int,
        beam_width: int | None = None,
        excluded_items: Sequence[int] = (),
        rule: SearchRule = STRICT,
        cache_key: str | None = None,
        allowed_items: ItemSet | None = None,
        reserved: ReservedPlaces | None = None,
    ) -> BeamRequest: ...

    def successor(self, catalog: Catalog, name: str) -> "RequestSource": ...


@dataclass(frozen=True)
class EngineCatalog:
    """A catalog that requests may name."""

    source: RequestSource
    filters: EngineFilters


class EngineCatalogs:
    """Catalogs by name.

    Attributes:
        engines: what the scheduler steps.
    """

    def __init__(self, name: str, source: RequestSource) -> None:
        self.engines = EngineGroup(name, source.engine)
        self._catalogs = {name: _with_filters(source)}
        self._first = source
        self._loader = ThreadPoolExecutor(1, "catalog")
        self._loading: dict[str, Future[EngineCatalog]] = {}

    @property
    def loading(self) -> bool:
        """Whether a catalog is on its way."""
        return bool(self._loading)

    def get(self, name: str) -> EngineCatalog:
        """The catalog of a name.

        Raises:
            ValueError: there is none.
        """
        if name not in self._catalogs:
            raise ValueError(f"The engine has no catalog {name!r}.")
        return self._catalogs[name]

    def take_graph_counts(self) -> GraphCounts:
        """Forwards by CUDA graphs since this was last asked; catalogs come and go, their models stay."""
        return self._first.take_graph_counts()

    def put_filter(self, catalog: str, name: str, bits: bytes) -> None:
        """Names a filter of a catalog; one that is gone needs none."""
        if catalog in self._catalogs:
            self._catalogs[catalog].filters.put(name, bits)

    def drop_filter(self, catalog: str, name: str) -> None:
        """Forgets a filter, if it is here."""
        if catalog in self._catalogs:
            self._catalogs[catalog].filters.drop(name)

    def load(self, name: str, path: str) -> None:
        """Begins to get a catalog ready; `loaded` tells when it is."""
        self._loading[name] = self._loader.submit(_load, self._first, name, path)

    def drop(self, name: str) -> None:
        """Forgets a catalog, if it is here or on its way; no request that names it is left."""
        self._loading.pop(name, None)
        if self._catalogs.pop(name, None) is not None:
            self.engines.drop(name)

    def loaded(self) -> list[CatalogLoaded]:
        """Takes in the catalogs that have become ready, and says what became of those that were on their way."""
        told = []
        for name, future in list(self._loading.items()):
            if not future.done():
                continue
            del self._loading[name]
            try:
                catalog = future.result()
            except SetupError as error:
                told.append(CatalogLoaded(name, str(error)))
                continue
            self._catalogs[name] = catalog
            self.engines.put(name, catalog.source.engine)
            self._first = catalog.source
            told.append(CatalogLoaded(name))
        return told

    def close(self) -> None:
        """Waits for what is under way and frees the models."""
        self._loader.shutdown()
        self.engines.close()


def _with_filters(source: RequestSource) -> EngineCatalog:
    """A catalog without named filters yet; when its items came is read here, where no step waits for it."""
    column = source.catalog.attributes.get(ADDED_AT)
    return EngineCatalog(source, EngineFilters(len(source.catalog), None if column is None else added_days(column)))


def _load(source: RequestSource, name: str, path: str) -> EngineCatalog:
    return _with_filters(source.successor(load_catalog(Path(path)), name))
