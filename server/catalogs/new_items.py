"""New items for the catalog that is served: from a request to a version that has them.

Invariant: if something else changes what is served while items are placed, they are placed anew. So two requests at the same time both
succeed, one on top of the other, also where two replicas take them. When a request is refused, at any point, the served version stays and
no other version is left behind.
"""

import asyncio
import logging
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drafting.catalog.attributes import TITLE
from drafting.catalog.placement import NewItem, PlacedItem
from server.catalogs.background import ProcessLimits, run_in_background
from server.catalogs.known import may_be_written
from server.catalogs.placing import Placed, PlaceOrder
from server.catalogs.served import ServedCatalog
from server.catalogs.store import Candidate, CatalogStore
from server.catalogs.switch import CatalogSwitch
from server.control.records import Activation, VersionRecord
from server.engine.supervisor import EngineStatus, EngineSupervisor
from server.errors import ItemsRefused, ItemsTaken, StorageFull, VersionActive, VersionNotFound
from server.schemas.catalogs import NewItemBody, NewItemsBody
from server.settings import Settings
from server.try_again import ControlUnavailable, TryAgain

logger = logging.getLogger(__name__)

# Each is a whole catalog on the disk: of those that new items have made, this many stay to go back to.
KEPT_VERSIONS = 10
_WITH_ITEMS = re.compile(r"(.+)\.items-(\d+)")
# With a number behind it, still a name that a path may hold.
_LONGEST_STEM = 80


@dataclass
class _Attempt:
    """How far a request to add items has come, so that it can be tried again or undone.

    Attributes:
        unfinished: where the next version is written.
        candidate: the version while it is made ready.
        base: the version that the items are placed on top of.
        path: the published file that has them.
    """

    unfinished: Path
    candidate: Candidate
    base: ServedCatalog | None = None
    path: Path | None = None
    items: list[PlacedItem] = field(default_factory=list)


class NewItems:
    """Adds items to the catalog that is served."""

    def __init__(self, catalogs: CatalogStore, supervisor: EngineSupervisor, switch: CatalogSwitch, settings: Settings) -> None:
        self._catalogs = catalogs
        self._supervisor = supervisor
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
            ControlUnavailable: the control store does not answer; the items may be there.
        """
        self._catalogs.check_shared()
        async with self._catalogs.changing:
            with self._catalogs.candidate() as candidate:
                attempt = _Attempt(self._catalogs.files.unfinished(), candidate)
                try:
                    placed, activation = await self._catalogs.follower.decide(lambda: self._add(body, attempt))
                except (ControlUnavailable, asyncio.CancelledError) as error:
                    if may_be_written(error):
                        # So may the version.
                        attempt.path = None
                    raise
                finally:
                    self._catalogs.files.discard(attempt.unfinished)
                    if attempt.path is not None:
                        await self._catalogs.discard(attempt.path)
            await self._forget_older(activation.version)
            return placed, activation

    async def _add(self, body: NewItemsBody, attempt: "_Attempt") -> tuple[list[PlacedItem], Activation]:
        """Place the items on top of what is served, and serve that; what was placed on top of the same is not placed again."""
        # Found out before the work, which without an engine would be for nothing.
        if self._supervisor.status is not EngineStatus.READY:
            raise self._supervisor.unavailable()
        base = self._catalogs.active
        if attempt.base is not base or attempt.path is None:
            if attempt.path is not None:
                await self._catalogs.discard(attempt.path)
                attempt.path = None
            attempt.base = base
            placed = await self._place(body, attempt.unfinished)
            attempt.items = placed.items
            attempt.path = await asyncio.to_thread(self._catalogs.files.publish, attempt.unfinished, placed.digest)
        taken = {*self._catalogs.versions(), *(entry.version for entry in self._catalogs.history)}
        version = next_version(base.name, taken)
        return attempt.items, await self._switch.extend(attempt.candidate, base, version, body.by, attempt.path)

    async def _forget_older(self, version: str) -> None:
        try:
            for superfluous in _older(version, self._catalogs.record.versions)[:-KEPT_VERSIONS]:
                await self._catalogs.remove(superfluous)
        except (StorageFull, VersionNotFound, VersionActive, TryAgain) as error:
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


def _older(version: str, versions: Mapping[str, VersionRecord]) -> list[str]:
    """The versions that new items have made of the same one, this one among them, oldest first; none that was brought under such a name."""
    made = (name for name, record in versions.items() if record.by_items)
    found = [match for name in made if (match := _WITH_ITEMS.fullmatch(name)) and match[1] == _stem(version)]
    return [match[0] for match in sorted(found, key=lambda match: int(match[2]))]


def _attributes(item: NewItemBody) -> dict[str, object]:
    return item.attributes if item.title is None else item.attributes | {TITLE: item.title}
