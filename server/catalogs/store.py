"""The versions of the catalog: which are there, which one is served, who decided so and when.

Invariant: a request keeps the version that it started with to its end, and its answer names that version. A version is served from the
moment in which the engine has it ready and every named filter has been evaluated for it; until then, and whenever anything about it is
wrong, everything stays as it was. What a version holds in memory goes when its last request ends.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.loading import load_catalog
from drafting.trie.item_set import ItemSet
from server.engine.client import EngineClient
from server.errors import CatalogRefused, NothingToRollBack, UnknownItem, VersionActive, VersionExists, VersionNotFound, quoted
from server.messages import PutFilter

SUFFIX = ".catalog"
HISTORY_FILE = "activations.jsonl"
BY_START = "start"
BY_RESTART = "restart"

logger = logging.getLogger(__name__)


class Activation(msgspec.Struct, frozen=True):
    """One entry of the history.

    Attributes:
        version: version served from then on.
        by: origin of the activation.
        at: seconds since 1970.
    """

    version: str
    by: str
    at: float


@dataclass(eq=False)
class ServedCatalog:
    """A version in memory.

    Attributes:
        name: name of the version, also in answers.
        handle: name of the version in the engine; a version that is activated again gets another one.
        path: the file that engines load it from.
        filters: the items that each named filter lets through.
        running: requests that have started with it and not ended.
    """

    name: str
    handle: str
    path: Path
    catalog: Catalog
    filters: dict[str, ItemSet] = field(default_factory=dict)
    running: int = 0


class CatalogStore:
    """The versions of one server, as files in a directory, and the one that is served.

    Attributes:
        active: the version that requests start with.
        history: all activations, oldest first.
        directory: directory of the versions.
    """

    def __init__(self, first: ServedCatalog, engine: EngineClient, directory: Path) -> None:
        """`first` is what the engine loads; the versions that are in the directory already are known."""
        self.active = first
        self.directory = directory
        self.history = read_history(directory)
        self.changing = asyncio.Lock()
        self._engine = engine
        self._files = {path.stem: path for path in sorted(directory.glob(f"*{SUFFIX}"))} | {first.name: first.path}
        self._loads = 0

    def started(self, by: str) -> None:
        """Note in the history that a server has started with the active version."""
        self._note(by)

    def versions(self) -> list[str]:
        """The names of all versions, in the order in which they came."""
        return list(self._files)

    def new_file(self, name: str) -> Path:
        """Where the artefact of a version belongs."""
        return self.directory / f"{name}{SUFFIX}"

    def add(self, name: str) -> None:
        """Make a version known whose artefact is in its place."""
        self._files[name] = self.new_file(name)

    def check_new(self, name: str) -> None:
        """Check that no version has this name.

        Raises:
            VersionExists: one has it.
        """
        if name in self._files:
            raise VersionExists(f"There is a version {quoted(name)} already; versions do not change.")

    def remove(self, name: str) -> None:
        """Forget a version and its file.

        Raises:
            VersionNotFound, VersionActive: there is none, or it is served.
        """
        path = self._file(name)
        if name == self.active.name:
            raise VersionActive(f"The version {quoted(name)} is served: activate another one first.")
        del self._files[name]
        if path == self.new_file(name):
            path.unlink(missing_ok=True)

    @contextmanager
    def lease(self) -> Iterator[ServedCatalog]:
        """The version that is served now, for as long as a request needs it."""
        served = self.active
        served.running += 1
        try:
            yield served
        finally:
            served.running -= 1
            if not served.running and served is not self.active:
                self._engine.drop_catalog(served.handle)

    async def activate(self, name: str, by: str, prepare: Callable[[ServedCatalog], Awaitable[None]]) -> Activation:
        """Serve a version from now on; call it with the lock `changing` held. After an error nothing has changed.

        Args:
            prepare: evaluates the named filters for it.

        Raises:
            VersionNotFound, CatalogRefused: there is none of that name, or its file is unusable, or the engine can't serve it.
            EngineUnavailable: there is no engine, or it died meanwhile.
        """
        path = self._file(name)
        if name != self.active.name:
            self._loads += 1
            try:
                served = ServedCatalog(name, f"{name}#{self._loads}", path, await asyncio.to_thread(load_catalog, path))
            except CatalogError as error:
                raise CatalogRefused(f"The version {quoted(name)} can't be read any more.") from error
            await prepare(served)
            await self._engine.load_catalog(served.handle, served.path)
            for filter_name, items in list(served.filters.items()):
                self.put_filter(served, filter_name, items)
            self._engine.serve_catalog(served.handle, served.path, served.catalog.version)
            before, self.active = self.active, served
            if not before.running:
                self._engine.drop_catalog(before.handle)
        return self._note(by)

    def put_filter(self, served: ServedCatalog, name: str, items: ItemSet) -> None:
        """Give a name to a set of a version's items, here and in the engine."""
        message = PutFilter(served.handle, name, items.bits.tobytes())
        self._engine.put_filter(message)
        # The bytes of the message, which engines that are started later are told too, are the set: there is no second copy.
        served.filters[name] = ItemSet(np.frombuffer(message.bits, np.uint8), items.catalog_items)

    def previous(self) -> str:
        """The version that was served before the present one.

        Raises:
            NothingToRollBack: there was none, or it has been removed.
        """
        earlier = [entry.version for entry in self.history if entry.version != self.active.name and entry.version in self._files]
        if not earlier:
            raise NothingToRollBack("No other version has been served before this one.")
        return earlier[-1]

    def _note(self, by: str) -> Activation:
        entry = Activation(self.active.name, by, time.time())
        self.history.append(entry)
        with (self.directory / HISTORY_FILE).open("ab") as file:
            # The line break comes first, so that a line that was cut off spoils none after it.
            file.write(b"\n" + msgspec.json.encode(entry))
        return entry

    def _file(self, name: str) -> Path:
        if name not in self._files:
            raise VersionNotFound(f"There is no catalog version {quoted(name)}.")
        return self._files[name]


def known_items(catalog: Catalog, item_ids: Sequence[str], field: str) -> list[int]:
    """The catalog indices of items that a field of a request names.

    Raises:
        UnknownItem: the catalog does not have one of them.
    """
    if not item_ids:
        return []
    indices: list[int] = catalog.indices_of(item_ids).tolist()
    if missing := [item_id for item_id, index in zip(item_ids, indices, strict=True) if index < 0]:
        raise UnknownItem(f"The catalog has no item {quoted(missing[0])}, which {field} names.")
    return indices


def read_history(directory: Path) -> list[Activation]:
    """The activations that servers have noted in a directory, oldest first; a last line that is cut off is passed over."""
    path = directory / HISTORY_FILE
    if not path.exists():
        return []
    entries = []
    for line in filter(None, path.read_bytes().splitlines()):
        try:
            entries.append(msgspec.json.decode(line, type=Activation))
        except msgspec.DecodeError:
            logger.warning("%s holds a line that is no activation", path)
    return entries


def first_catalog(start: Catalog, path: Path, directory: Path | None) -> tuple[ServedCatalog, str]:
    """The version that a server begins with, and who decided so: the one served last, unless the server is started with another catalog.

    Args:
        start: the catalog that the server is started with, and `path` its file.
        directory: directory of the versions; None if they do not outlive a server.

    Raises:
        CatalogError: the version that was served last can't be read.
    """
    history = read_history(directory) if directory is not None else []
    began = next((entry.version for entry in reversed(history) if entry.by == BY_START), None)
    last = history[-1].version if history else start.version
    if directory is not None and began == start.version != last and (artefact := directory / f"{last}{SUFFIX}").exists():
        return ServedCatalog(last, "", artefact.absolute(), load_catalog(artefact)), BY_RESTART
    return ServedCatalog(start.version, "", path.absolute(), start), BY_START
