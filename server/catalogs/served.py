"""A version of the catalog in memory, and the items that requests name in it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drafting.catalog.catalog import Catalog
from drafting.errors import quoted
from drafting.neighbours.candidates import CatalogNeighbours
from drafting.neighbours.model import NeighbourModel
from drafting.trie.item_set import ItemSet
from server.errors import UnknownItem

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class ServedCatalog:
    """A version in memory.

    Attributes:
        name: name of the version, also in answers.
        handle: name of the version in the engine; a version that is activated again gets another one.
        path: the file that engines load it from.
        filters: the items that each named filter lets through.
        meanings: for each of them what it means, as the control store holds it.
        running: requests that have started with it and not ended.
        neighbours: what the server's neighbour model knows of its items; None without such a model.
    """

    name: str
    handle: str
    path: Path
    catalog: Catalog
    filters: dict[str, ItemSet] = field(default_factory=dict)
    meanings: dict[str, bytes] = field(default_factory=dict)
    running: int = 0
    neighbours: CatalogNeighbours | None = None

    def learn_neighbours(self, model: NeighbourModel | None) -> None:
        """Look up the items of a neighbour model, if there is one."""
        if model is not None:
            self.neighbours = CatalogNeighbours.of(model, self.catalog)
            level = logging.INFO if self.neighbours.known else logging.WARNING
            logger.log(level, "the neighbour model knows %d of %d items of version %s", self.neighbours.known, len(self.catalog), self.name)


def known_items(catalog: Catalog, item_ids: Sequence[str], field: str) -> list[int]:
    """The catalog indices of items that a field of a request names.

    Raises:
        UnknownItem: the catalog does not have one of them.
    """
    indices, missing = found_items(catalog, item_ids)
    if missing:
        raise UnknownItem(f"The catalog has no item {quoted(missing[0])}, which {field} names.")
    return indices


def found_items(catalog: Catalog, item_ids: Sequence[str]) -> tuple[list[int], list[str]]:
    """The catalog indices of items, -1 for those that the catalog does not have, and the ids of these."""
    if not item_ids:
        return [], []
    indices: list[int] = catalog.indices_of(item_ids).tolist()
    return indices, [item_id for item_id, index in zip(item_ids, indices, strict=True) if index < 0]
