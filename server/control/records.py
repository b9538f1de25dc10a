"""What the keys of the control store hold: its beginning, versions of the catalog, activations, versions that were left, starts, and named
filters.

Invariant: a `Record` follows from the values alone, however it came to them: by a whole state, or write by write. Activations have keys
of their own, so that one more costs no more than itself; a number is never given twice, because a write is a compare-and-set on all.

While servers are updated one after the other, old and new ones share the state. What a later release adds, under keys or in fields of its
own, is passed over. What an earlier one must not read, it writes with a higher `FORM`, and an earlier one reads no further.
"""

import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import numpy as np

from drafting.catalog.text_column import TextColumn
from drafting.errors import first_line
from server.try_again import ControlUnavailable

Changes = dict[str, bytes | None]
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

# Form of the values; a release that gives a key or a field another meaning counts it up, and writes it under `WRITTEN_IN` with them.
FORM = 1
WRITTEN_IN = "form/"
CREATED, FILTER, VERSION, ACTIVATION, LEFT, BEGAN = "created/", "filter/", "version/", "activation/", "left/", "began/"
# Those before are forgotten.
MAX_ACTIVATIONS = 10_000
# More than a request with the names of items has bytes: what a damaged or a forged state says must not fill the memory of all replicas.
_MOST_NAME_BYTES = 16 << 20


class VersionRecord(msgspec.Struct, frozen=True):
    """A version of the catalog.

    Attributes:
        file: name of its file among those of the versions, or the absolute path of one that lies elsewhere.
        at: time at which it came, seconds since 1970.
        contents: the version of its contents, by which a file that others may replace is judged; empty for one that is named by its digest.
        by_items: True for one that new items have made, which later ones may forget.
        after: number of the newest activation when it came; up to that one, its name was that of another version.
    """

    file: str
    at: float
    contents: str = ""
    by_items: bool = False
    after: int = 0


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


class LeftVersion(msgspec.Struct, frozen=True):
    """A version that a server has left by itself.

    Attributes:
        at: seconds since 1970.
        reason: a sentence.
    """

    version: str
    at: float
    reason: str


class Start(msgspec.Struct, frozen=True):
    """A catalog that servers were started with; `at` is when one was last activated by that, seconds since 1970.

    It is later than that of every start before, also where a clock was ahead then: the latest start is the last one.
    """

    at: float


class FilterRecord(msgspec.Struct, frozen=True):
    """A named filter: an expression in UTF-8, or names of items, compressed: their lengths and their bytes, one after the other."""

    expression: bytes | None = None
    lengths: bytes = b""
    data: bytes = b""


@dataclass
class Record:
    """The decoded state.

    Attributes:
        form: number of the values' form; if it is later than this release knows, all other fields are as they were before.
        created: time at which it began, seconds since 1970. What a directory holds from before may be named by a state that was lost.
        versions: versions of the catalog by name.
        activations: activations by number.
        left: versions that were left, and neither activated nor removed since.
        began: starts of servers by the version of the catalog that they were started with.
        filters: encoded meanings by name (`decode_filter`); one that has not changed is the same object.
    """

    form: int = FORM
    created: float = math.inf
    versions: dict[str, VersionRecord] = field(default_factory=dict)
    activations: dict[int, Activation] = field(default_factory=dict)
    left: dict[str, LeftVersion] = field(default_factory=dict)
    began: dict[str, Start] = field(default_factory=dict)
    filters: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, bytes]) -> "Record":
        """Decode a whole state."""
        record = cls()
        record.take(values)
        return record

    def take(self, changes: Mapping[str, bytes | None]) -> None:
        """Take in the changes of a write; keys of later releases are passed over, and all that is in a form of theirs."""
        if (form := changes.get(WRITTEN_IN)) is not None:
            self.form = msgspec.msgpack.decode(form, type=int)
        if self.form > FORM:
            return
        for key, value in changes.items():
            kind, _, name = key.partition("/")
            if (prefix := f"{kind}/") == CREATED:
                self.created = math.inf if value is None else msgspec.msgpack.decode(value, type=float)
            elif prefix == FILTER:
                self.filters.pop(name, None)
                if value is not None:
                    self.filters[name] = value
            elif prefix == VERSION:
                _put(self.versions, name, value, VersionRecord)
            elif prefix == ACTIVATION:
                _put(self.activations, int(name), value, Activation)
            elif prefix == LEFT:
                _put(self.left, name, value, LeftVersion)
            elif prefix == BEGAN:
                _put(self.began, name, value, Start)

    @property
    def history(self) -> list[Activation]:
        """All activations that are known, oldest first."""
        return [self.activations[number] for number in sorted(self.activations)]

    @property
    def newest(self) -> int:
        """Number of the newest activation; 0 before any."""
        return max(self.activations, default=0)

    @property
    def served(self) -> list[str]:
        """Names of the versions that are there and have been activated, the newest activation first."""
        there = self.versions
        newest_first = sorted(self.activations.items(), reverse=True)
        # A name may have been that of a version that was removed since.
        found = (entry.version for number, entry in newest_first if entry.version in there and number > there[entry.version].after)
        return list(dict.fromkeys(found))

    @property
    def active(self) -> str | None:
        """Name of the version that is to be served; None before any is."""
        return self.activations[self.newest].version if self.activations else None

    @property
    def began_last(self) -> str | None:
        """The catalog that servers were last started with, if one was."""
        return max(self.began, key=lambda version: self.began[version].at, default=None)

    def activated(self, entry: Activation) -> Changes:
        """The changes that activate a version; it is trusted again, and what was left and is gone is of no more concern."""
        number = 1 + self.newest
        changes: Changes = {f"{ACTIVATION}{number:010d}": msgspec.msgpack.encode(entry)}
        if (old := number - MAX_ACTIVATIONS) in self.activations:
            changes[f"{ACTIVATION}{old:010d}"] = None
        over = (name for name in self.left if name == entry.version or name not in self.versions)
        return changes | {f"{LEFT}{name}": None for name in over}

    def began_with(self, version: str, at: float) -> Changes:
        """The changes that say that a server was started with a catalog, and serves it therefore."""
        latest = max((start.at for start in self.began.values()), default=-math.inf)
        return {f"{BEGAN}{version}": msgspec.msgpack.encode(Start(max(at, math.nextafter(latest, math.inf))))}


def state_created(at: float) -> Changes:
    """The changes that say when a state began."""
    return {CREATED: msgspec.msgpack.encode(at)}


def version_added(name: str, version: VersionRecord) -> Changes:
    """The changes that add a version."""
    return {f"{VERSION}{name}": msgspec.msgpack.encode(version)}


def version_removed(name: str) -> Changes:
    """The changes that remove a version; another one that gets its name was not left."""
    return {f"{VERSION}{name}": None, f"{LEFT}{name}": None}


def version_left(left: LeftVersion) -> Changes:
    """The changes that say that a version was left; they come with the activation of another."""
    return {f"{LEFT}{left.version}": msgspec.msgpack.encode(left)}


def encode_filter(what: str | TextColumn) -> bytes:
    """The meaning of a filter as bytes."""
    if isinstance(what, str):
        # Texts from clients may hold halves of surrogate pairs.
        return msgspec.msgpack.encode(FilterRecord(what.encode("utf-8", "surrogatepass")))
    lengths, data = np.diff(what.offsets).astype(np.uint32), what.data[: what.offsets[-1]]
    return msgspec.msgpack.encode(FilterRecord(None, zlib.compress(lengths.tobytes(), 1), zlib.compress(data.tobytes(), 1)))


def decode_filter(value: bytes) -> str | TextColumn:
    """The meaning of a filter.

    Raises:
        ControlUnavailable: it is none.
    """
    with _damage_told():
        return _decoded_filter(value)


def _decoded_filter(value: bytes) -> str | TextColumn:
    record = msgspec.msgpack.decode(value, type=FilterRecord)
    if record.expression is not None:
        return record.expression.decode("utf-8", "surrogatepass")
    lengths, data = np.frombuffer(_inflated(record.lengths), np.uint32), _inflated(record.data)
    if int(lengths.sum(dtype=np.int64)) != len(data):
        raise ValueError("the names of a filter are not as long as it says")
    return TextColumn.of_bytes(lengths, data)


def _inflated(data: bytes) -> bytes:
    """What was compressed. Raises ValueError, zlib.error: it is damaged, or so much that no request can have brought it."""
    inflating = zlib.decompressobj()
    inflated = inflating.decompress(data, _MOST_NAME_BYTES)
    if not inflating.eof:
        raise ValueError("a filter is cut off, or larger than any that a request brings")
    return inflated


def checked(changes: Mapping[str, bytes | None], form: int = FORM) -> Record:
    """As `decoded`, of what the control store holds.

    Raises:
        ControlUnavailable: a part of it is damaged.
    """
    with _damage_told():
        return decoded(changes, form)


def decoded(changes: Mapping[str, bytes | None], form: int = FORM) -> Record:
    """The record of a whole state, or of one write to a state of this form, all filters of which have been decoded. It may take long.

    Raises:
        ValueError, zlib.error: a part of it is damaged.
    """
    record = Record(form)
    record.take(changes)
    for meaning in record.filters.values():
        _decoded_filter(meaning)
    return record


@contextmanager
def _damage_told() -> Iterator[None]:
    """Make a `ControlUnavailable` of what goes wrong when values are decoded: they are read again, and may be restored by then."""
    try:
        yield
    except (ValueError, zlib.error) as error:
        reason = first_line(error)
        raise ControlUnavailable(
            f"The control store holds what can't be read ({reason}): restore it with atspeed control restore."
        ) from error


def _put(named: dict[_Key, _Value], name: _Key, value: bytes | None, kind: type[_Value]) -> None:
    if value is None:
        named.pop(name, None)
    else:
        named[name] = msgspec.msgpack.decode(value, type=kind)
