"""`History`: what the fleet was to serve at each revision, made of the control store's log alone."""

import copy
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from drafting.catalog.loading import load_catalog
from server.control import State, Write
from server.control.records import Record, decode_filter


@dataclass(frozen=True)
class Active:
    """A version that was active.

    Attributes:
        since: when it was at the earliest.
        until: when it no longer was at the latest; both in seconds since 1970.
    """

    version: str
    since: float
    until: float


class History:
    """The states from one revision on.

    Attributes:
        writes: the log, in order; the revision of each is one more than that of the one before.
        first, last: revisions.
    """

    def __init__(
        self, first: State, writes: Sequence[Write], seen: Mapping[str, float], catalogs: Path, start: tuple[str, frozenset[str]]
    ) -> None:
        """
        Args:
            seen: when each write, by its id, was seen in the store.
            catalogs: directory of the versions' files.
            start: the version that lies elsewhere, and its items.
        """
        self.writes, self.first = list(writes), first.position.revision
        self.last = self.first + len(self.writes)
        self._seen, self._catalogs, self._start = seen, catalogs, start
        record = Record.of(first.values)
        self._records = [copy.deepcopy(record)]
        for write in self.writes:
            record.take(write.changes)
            self._records.append(copy.deepcopy(record))
        # A write that waited is noted with an earlier time than one that came before it.
        self._times: list[float] = []
        for write in reversed(self.writes):
            self._times.append(min([write.at, *self._times[-1:]]))
        self._times.reverse()

    def knows(self, revision: int) -> bool:
        """Whether there is a state of this revision."""
        return self.first <= revision <= self.last

    def at(self, revision: int) -> Record:
        """The state of a revision."""
        return self._records[revision - self.first]

    def until(self, moment: float) -> int:
        """The last revision that may have been there at a time."""
        return self.first + bisect_right(self._times, moment)

    def meanings(self, name: str, first: int, last: int) -> Iterator[str | frozenset[str] | None]:
        """The meanings that a filter has had from revision `first` to `last`, one after the other; None while there was none."""
        before: object = self
        for revision in range(max(first, self.first), min(last, self.last) + 1):
            if (value := self.at(revision).filters.get(name)) != before:
                yield meaning(value)
            before = value

    def brought(self, version: str) -> int | None:
        """The revision at which a version came; None if it did not, or was there at first."""
        for revision in range(self.first + 1, self.last + 1):
            if version in self.at(revision).versions and version not in self.at(revision - 1).versions:
                return revision
        return None

    def items(self, version: str) -> frozenset[str]:
        """The items of a version, as its file has them."""
        if version == self._start[0]:
            return self._start[1]
        file = next(record.versions[version].file for record in reversed(self._records) if version in record.versions)
        return _items(self._catalogs / file)

    @cached_property
    def active(self) -> list[Active]:
        """All versions that were active, in order."""
        found = [Active(self._records[0].active or "", 0.0, float("inf"))]
        for write, record in zip(self.writes, self._records[1:], strict=True):
            if record.active != found[-1].version:
                until = self._seen.get(write.position.write_id, float("inf"))
                found[-1] = Active(found[-1].version, found[-1].since, until)
                found.append(Active(record.active or "", write.at, float("inf")))
        return found


def meaning(value: bytes | None) -> str | frozenset[str] | None:
    """An encoded filter's expression, or its items."""
    if value is None:
        return None
    told = decode_filter(value)
    return told if isinstance(told, str) else frozenset(told)


@lru_cache(maxsize=1000)
def _items(file: Path) -> frozenset[str]:
    return frozenset(load_catalog(file).item_ids)
