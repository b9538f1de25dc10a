"""New items for the catalog that is served: from a request to a version that has them.

Invariant: nothing else changes what is served while items are placed, so two requests at a time both land, one on top of the other; and
when one is refused, at any point, the served version stays and no other is left behind.
"""

import asyncio
import logging
import re
import time
from collections.abc import Iterable
from pathlib import Path

from drafting.catalog.attributes import TITLE
from drafting.catalog.placement import NewItem, PlacedItem
from server.catalogs.background import ProcessLimits, run_in_background
from server.catalogs.journal import Activation
from server.catalogs.placing import Placed, PlaceOrder
from server.catalogs.store import CatalogStore
from server.catalogs.switch import CatalogSwitch
from server.engine.client import EngineClient, EngineStatus
from server.errors import ItemsRefused, ItemsTaken, StorageFull
from server.schemas.catalogs import NewItemBody, NewItemsBody
from server.settings import Settings

logger = logging.getLogger(__name__)

# Each is a whole catalog on the disk: of those that new items have made, this many stay to go back to.
KEPT_VERSIONS = 10
_WITH_ITEMS = re.compile(r"(.+)\.items-(\d+)")
# With a number behind it, still a name that a path may hold.
_LONGEST_STEM = 80


class NewItems:
    """Adds items to the catalog that is served."""

    def __init__(self, catalogs: CatalogStore, engine: EngineClient, switch: CatalogSwitch, settings: Settings) -> None:
        self._catalogs = catalogs
        self._engine = engine
        self._switch = switch
        # They made the catalog's identifiers; without them items must bring theirs.
        self._codebooks = None if settings.codebooks is None else str(settings.codebooks.absolute())
        self._max_items = settings.catalog_max_items
        self._limits = ProcessLimits(settings.catalog_build_memory_gib, settings.catalog_build_seconds)

    async def add(self, body: NewItemsBody) -> tuple[list[PlacedItem], Activation]:
        """Add items; when it returns, the version that has them is served.

        Raises:
            ItemsRefused, CatalogRefused, FilterRefused: one has no place, or the engine can't serve them; nothing has changed.
            StorageFull: the version can't be stored; nothing has changed.
            EngineUnavailable: there is no engine, or it died meanwhile; nothing has changed.
        """
        async with self._catalogs.changing:
            # Found out before the work, which without an engine would be for nothing.
            if self._engine.status is not EngineStatus.READY:
                raise self._engine.unavailable()
            taken = {*self._catalogs.versions(), *(entry.version for entry in self._catalogs.history)}
            version = next_version(self._catalogs.active.name, taken)
            files = self._catalogs.files
            unfinished = files.unfinished()
            try:
                placed = await self._place(body, unfinished)
                path = await asyncio.to_thread(files.publish, unfinished, placed.digest)
                try:
                    activation = await self._switch.serve(version, body.by, extended=path)
                finally:
                    self._catalogs.discard(path)
            finally:
                files.discard(unfinished)
            self._forget_older(version)
            return placed.items, activation

    def _forget_older(self, version: str) -> None:
        try:
            for superfluous in _older(version, self._catalogs.versions())[:-KEPT_VERSIONS]:
                self._catalogs.remove(superfluous)
        except StorageFull as error:
            # The items are served: what is too much is forgotten with the next ones.
            logger.warning("versions that are not needed any more stay: %s", error)

    async def _place(self, body: NewItemsBody, unfinished: Path) -> Placed:
        active = self._catalogs.active
        order = PlaceOrder(
            base=str(active.path),
            version=active.catalog.version,
            artefact=str(unfinished),
            codebooks=self._codebooks,
            items=[NewItem(item.item_id, item.embedding, item.identifier, _attributes(item)) for item in body.items],
            collision=body.on_collision,
            added_at=int(time.time()),
            max_items=self._max_items,
        )
        placed = await run_in_background("server.catalogs.placing", order, Placed, self._limits, ItemsRefused)
        if placed.sentence is not None:
            raise (StorageFull if placed.storage else ItemsTaken if placed.taken else ItemsRefused)(placed.sentence)
        return placed


def next_version(active: str, taken: Iterable[str]) -> str:
    """A name for the version that new items make of one: its own, and a number that none had before.

    Args:
        taken: all names that have ever meant something.
    """
    stem = _stem(active)[:_LONGEST_STEM]
    numbers = [int(match[2]) for name in taken if (match := _WITH_ITEMS.fullmatch(name)) and match[1] == stem]
    return f"{stem}.items-{1 + max(numbers, default=0)}"


def _stem(version: str) -> str:
    match = _WITH_ITEMS.fullmatch(version)
    return match[1] if match else version


def _older(version: str, versions: Iterable[str]) -> list[str]:
    """The versions that new items have made of the same one, this one among them, oldest first."""
    found = [match for name in versions if (match := _WITH_ITEMS.fullmatch(name)) and match[1] == _stem(version)]
    return [match[0] for match in sorted(found, key=lambda match: int(match[2]))]


def _attributes(item: NewItemBody) -> dict[str, object]:
    return item.attributes if item.title is None else item.attributes | {TITLE: item.title}
