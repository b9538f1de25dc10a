"""The contract of control stores: `Position`, `Write`, `State`, `Replica` and `ControlStore`.

A control store is a map of keys to bytes with one position, and a log of its newest writes. A replica that is near the store reads the
log; one that is far behind, or new, reads the whole map.

Invariant: a write is a compare-and-set on the position of the whole store, atomic with all of its changes, so all writes have one order
and each was judged at exactly the state that it changes. A write is in the log and in the map, or in neither. Why the whole store and not
a key: what a write is judged by (which versions there are, which is active) lies under other keys than what it changes.

A position names its write. A store that has lost a write, as Redis may in a failover, stands at another position even where its revision
is the same again, so no replica takes the one for the other. A position also names the generation of the state, a random name given when
the state was created or restored: revisions of different generations say nothing about each other.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a control store.

    Attributes:
        log_writes: number of writes in the log, at least 1.
        log_bytes: bytes in the log, except that its newest write stays whatever its size.
        announced_seconds: time for which a replica lives after its last announcement.
        timeout_seconds: time for an operation of a store that lies elsewhere, and for a writer in another process.
    """

    log_writes: int = 1000
    log_bytes: int = 64 * 2**20
    announced_seconds: float = 5.0
    timeout_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Position:
    """The position of a store or of a replica: the last write that counts.

    Attributes:
        generation: random name, given when the state was created or restored; empty for a replica that has applied no state.
        revision: number of the write, one more than that of the write before it.
        write_id: random name of the write.
    """

    generation: str
    revision: int
    write_id: str

    def has(self, other: "Position") -> bool:
        """True if who stands here has what was written up to `other`."""
        return self.generation == other.generation and self.revision >= other.revision


NOWHERE = Position("", 0, "")


@dataclass(frozen=True, slots=True)
class Write:
    """A write, in the log.

    Attributes:
        position: position of the store after it.
        at: time of the writer's clock, in seconds since the epoch.
        by: name of the replica that wrote it.
        changes: new values by key; None deletes the key.
    """

    position: Position
    at: float
    by: str
    changes: Mapping[str, bytes | None]

    @property
    def size(self) -> int:
        """Approximate number of bytes in the log."""
        return 200 + sum(len(key) + len(value or b"") for key, value in self.changes.items())


@dataclass(frozen=True, slots=True)
class State:
    """The whole state at one position; `values` are by key."""

    position: Position
    values: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Replica:
    """What a replica announces of itself.

    Attributes:
        name: unique among the replicas that live.
        position: position up to which it has applied the store.
        ready: True if it is ready for requests.
        problem: a sentence that says why it lags or is not ready; None if all is well.
        started_at: seconds since the epoch.
        software: release of the server.
        version: version of the catalog that it serves; empty before there is one.
    """

    name: str
    position: Position
    ready: bool
    problem: str | None
    started_at: float
    software: str
    version: str


class ControlStore(Protocol):
    """The state that all replicas agree on. Keys are texts that UTF-8 can encode; values are bytes, up to some hundred MiB each.

    Big values are compressed by who writes them. Every method but `close` raises `ControlUnavailable` if the store does not answer in time.
    """

    async def create(self, values: Mapping[str, bytes]) -> State:
        """Create the state, revision 0 of a new generation, in a store that has none.

        Raises ControlConflict where there is a state, and ControlUnavailable as `write`.
        """
        ...

    async def replace(self, values: Mapping[str, bytes], revision: int) -> State:
        """Restore: put a state of a new generation in place of what is there, or of nothing.

        Its revision is above `revision`, and above that of what is there. Raises ControlUnavailable as `write`.
        """
        ...

    async def state(self) -> State | None:
        """Read the whole state; None if the store is empty. It is not confirmed: `writes` after its position is."""
        ...

    async def position(self) -> Position | None:
        """Read the position; None if the store is empty. A store that does not answer is found out soon.

        Where the store confirms what it acknowledges, also this is confirmed: no write up to it can be lost, and it was the newest one
        when it was asked for.
        """
        ...

    async def writes(self, after: Position) -> list[Write] | None:
        """Read what was written after a position, in order, without gaps; nothing if the store stands there. Confirmed as `position`.

        Returns None where the log does not tell: the store is empty, of another generation or without the write of that position, or
        its log is trimmed, also for a write of thousands of changes. `state` tells then.
        """
        ...

    async def write(self, after: Position, by: str, changes: Mapping[str, bytes | None]) -> Write:
        """Change values, if the store stands at `after`. When it returns, the write is as durable as the store makes it.

        Raises:
            ControlConflict: the store stands elsewhere, or is empty; nothing was written.
            ControlUnavailable: the store did not answer, or its replicas did not; the write may or may not be there.
            ControlFull: it has no room for the write, which is not there.
        """
        ...

    async def wait(self, seen: Position | None, seconds: float) -> None:
        """Return when the store stands elsewhere than at `seen` (None: it was empty), or when the time is over.

        It may return early. Where a write was lost and another has its revision, it may take a second to notice.
        """
        ...

    async def announce(self, replica: Replica) -> None:
        """Say that a replica lives, and how it stands, until it says so again or the time of announcements is over."""
        ...

    async def withdraw(self, name: str) -> None:
        """Take back the announcement of a replica, which stops."""
        ...

    async def replicas(self) -> list[Replica]:
        """The replicas that live, by name.

        A store that was emptied knows a replica again when that has announced itself again.
        """
        ...

    async def close(self) -> None:
        """Close files and connections; the store can't be used afterwards."""
        ...


def random_name() -> str:
    """A name that no generation and no write has."""
    return os.urandom(12).hex()
