"""`SqliteHistoryStore`: histories in one SQLite file, for a machine without Redis.

Invariant: an append is one transaction, committed and synced before it returns, so an acknowledged event survives a kill or a power cut,
and a reader never sees half an append.

SQLite calls block, above all on the sync of a commit, so they run on threads of the store: all writes on one, as SQLite has one writer at
a time; reads on others with connections of their own. Write-ahead logging lets them read whatever a writer, here or in another process,
holds. Waking a thread takes longer than reading a user whose pages the system has in memory. So users of whom little is stored are read at
once, in the event loop; after a slow read, as from a busy disk, threads do all reads for a while.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Self, TypeVar

from drafting.prompts.user_state import Value
from server.errors import HistoryDamaged
from server.histories.base import DamageReport, Event, EventChoice, Retention, StoredUser, log_damage
from server.histories.history import History, own_copy
from server.histories.sqlite_file import (
    check,
    forget_history,
    forget_last,
    is_malformed,
    is_quickly_read,
    prepare,
    random_rows,
    read_history,
    read_newest,
    read_some,
    reading_all,
    replace_content,
    write_history,
)
from server.histories.sqlite_lives import find_longer, limit_lives
from server.histories.sqlite_tidying import LOOK_SECONDS, Tidying
from server.sqlite import create, file_of, open_reader, open_writer
from server.try_again import HistoryUnavailable

_T = TypeVar("_T")

_READERS = 4
# After a read in the event loop that took longer than a busy machine explains, threads do all reads for a while.
_SLOW_SECONDS, _WARY_SECONDS = 0.05, 1.0
_USERS_PER_TRANSACTION, _USERS_PER_SAMPLE = 50, 25


class SqliteHistoryStore:
    """A `HistoryStore` in the file at `path`, which is created with its folder if it does not exist.

    A write waits at most `timeout_seconds` for a writer in another process. The file is checked while the store is used already, and
    `on_damage` told. Raises ValueError if the file cannot be opened or is not a history file.
    """

    def __init__(self, path: Path, retention: Retention, timeout_seconds: float = 0.5, on_damage: DamageReport = log_damage) -> None:
        self._path, self._retention, self._timeout_seconds = path, retention, timeout_seconds
        self._wary_until = 0.0
        self._connections: list[sqlite3.Connection] = []
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        try:
            create(path)
            self._connections.append(open_writer(path, timeout_seconds, prepare))
            self._connections += [reading_all(open_reader(path, patience)) for patience in [timeout_seconds] * (_READERS + 1) + [0.0]]
        except (OSError, sqlite3.DatabaseError) as error:
            self._close_connections()
            raise ValueError(f"The history file {path} cannot be opened: {error}.") from error
        self._writer, checker, *readers, self._hasty = self._connections
        for reader in readers:
            self._idle.put(reader)
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writing")
        self._reading = ThreadPoolExecutor(_READERS, thread_name_prefix="sqlite-reading")
        self._checking = ThreadPoolExecutor(1, thread_name_prefix="sqlite-checking")
        self._checking.submit(check, checker, path, on_damage)
        self._tidying = Tidying(self._writer, self._transaction)
        self._closed = threading.Event()
        first = self._writing.submit(self._tidying.look, self._deadline())
        # A daemon, because a program that ends without closing the store must not wait for it.
        self._looking = threading.Thread(target=self._keep_tidy, args=(first,), name="sqlite-looking", daemon=True)
        self._looking.start()

    @classmethod
    def from_url(cls, url: str, retention: Retention, timeout_seconds: float = 0.5, on_damage: DamageReport = log_damage) -> Self:
        """The store of `sqlite:///relative/path`, `sqlite:////absolute/path` or `sqlite:///~/path`.

        Raises ValueError as the constructor, and for another URL.
        """
        return cls(file_of(url, "history"), retention, timeout_seconds, on_damage)

    async def append(self, user_id: str, events: Sequence[Event]) -> int:
        return await self.append_many({user_id: events})

    async def append_many(self, histories: Mapping[str, Sequence[Event]]) -> int:
        stored = 0
        remaining = iter(histories.items())
        # One transaction per group, so that many users share the sync of a commit, but other operations can run during a long load.
        while group := list(islice(remaining, _USERS_PER_TRANSACTION)):
            stored += await self._answer(self._writing.submit(self._append_group, group, self._deadline()))
        return stored

    async def read(self, user_id: str, limit: int | None = None) -> list[Event]:
        return (await self.read_user(user_id, limit)).events

    async def read_user(self, user_id: str, limit: int | None = None) -> StoredUser:
        window = self._retention.window(limit)
        if (found := self._read_at_once(user_id, window)) is not None:
            return found
        return await self._answer(self._reading.submit(self._with_reader, lambda reader: read_newest(reader, user_id, time.time(), window)))

    async def sample(self, users: int, limit: int) -> list[list[Event]]:
        found: list[list[Event]] = []
        # Groups from random places: rows are in the order in which users came.
        starts = await self._answer(self._reading.submit(self._with_reader, partial(random_rows, users, _USERS_PER_SAMPLE)))
        after = 0
        for start in starts:
            job = partial(read_some, max(start, after), time.time(), min(_USERS_PER_SAMPLE, users - len(found)), limit)
            some, after = await self._answer(self._reading.submit(self._with_reader, job))
            found += some
        return found

    async def put_profile(self, user_id: str, profile: Mapping[str, Value]) -> None:
        await self.put_profiles({user_id: profile})

    async def put_profiles(self, profiles: Mapping[str, Mapping[str, Value]]) -> None:
        remaining = iter(profiles.items())
        while group := list(islice(remaining, _USERS_PER_TRANSACTION)):
            await self._answer(self._writing.submit(self._put_group, group, self._deadline()))

    async def delete_profile(self, user_id: str) -> bool:
        return await self._erase(partial(self._transaction, partial(self._delete_profile, user_id), self._deadline()))

    async def delete_events(self, user_id: str, chosen: EventChoice) -> int:
        return await self._erase(partial(self._transaction, partial(self._delete_events, user_id, chosen), self._deadline()))

    async def delete(self, user_id: str) -> bool:
        return await self._erase(partial(self._forget, user_id, self._deadline()))

    async def limit_lives(self, tell: Callable[[int], object], pass_over: Callable[[int], object]) -> int:
        limited, rows = 0, [0]
        if self._retention.ttl_seconds is None:
            return limited
        while True:
            # From each look on, as events come meanwhile. A reader looks, as other writers wait for as long as a transaction does.
            until = time.time() + self._retention.ttl_seconds
            look = partial(find_longer, until, rows[-1], _USERS_PER_TRANSACTION)
            rows, is_any = await self._answer(self._reading.submit(self._with_reader, look))
            if not rows:
                return limited
            if is_any:
                job = partial(limit_lives, self._transaction, self._writer, until, rows, self._deadline())
                found, passed = await self._answer(self._writing.submit(job))
                limited += found
                tell(found)
                pass_over(passed)

    async def close(self) -> None:
        # A check of a large file goes on for long, and nobody waits for what it finds any more.
        self._connections[1].interrupt()
        self._closed.set()
        await asyncio.to_thread(self._looking.join)
        for pool in (self._checking, self._reading, self._writing):
            await asyncio.to_thread(pool.shutdown, cancel_futures=pool is self._checking)
        self._close_connections()

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout_seconds

    async def _answer(self, job: "Future[_T]") -> _T:
        try:
            return await asyncio.wrap_future(job)
        except sqlite3.DatabaseError as error:
            raise HistoryUnavailable(f"The history file {self._path} cannot be used: {error}.") from error

    def _transaction(self, call: Callable[[], _T], deadline: float) -> _T:
        # What has waited behind other writes has waited for the same lock: all of them give up together, not one after another.
        patience_ms = max(0, round(1000 * (deadline - time.monotonic())))
        self._writer.execute(f"PRAGMA busy_timeout = {patience_ms}")
        with self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            return call()

    async def _erase(self, call: Callable[[], _T]) -> _T:
        """What a call on the writing thread answers that deletes, once no copy of that is left."""
        answer = await self._answer(self._writing.submit(self._tidying.erase, call))
        await self._answer(self._writing.submit(self._tidying.empty_log))
        return answer

    def _keep_tidy(self, look: "Future[bool]") -> None:
        # A program that ends without closing the store has shut the pool down.
        with suppress(RuntimeError):
            while not self._closed.wait(0 if look.result() else LOOK_SECONDS):
                look = self._writing.submit(self._tidying.look, self._deadline())

    def _append_group(self, group: Sequence[tuple[str, Sequence[Event]]], deadline: float) -> int:
        self._tidying.forget_expired(deadline)
        return self._transaction(lambda: sum(self._append(user_id, events) for user_id, events in group if events), deadline)

    def _append(self, user_id: str, events: Sequence[Event]) -> int:
        history = read_history(self._writer, user_id, time.time()) or History()
        added = history.add(events, self._retention.max_events)
        self._write(user_id, history)
        return added

    def _write(self, user_id: str, history: History) -> None:
        ttl_seconds = self._retention.ttl_seconds
        write_history(self._writer, user_id, history, None if ttl_seconds is None else time.time() + ttl_seconds)

    def _put_group(self, group: Sequence[tuple[str, Mapping[str, Value]]], deadline: float) -> None:
        self._tidying.forget_expired(deadline)
        self._transaction(partial(self._put, group), deadline)

    def _put(self, group: Sequence[tuple[str, Mapping[str, Value]]]) -> None:
        for user_id, profile in group:
            history = read_history(self._writer, user_id, time.time()) or History()
            history.profile = own_copy(profile)
            self._write(user_id, history)

    def _delete_profile(self, user_id: str) -> bool:
        history = read_history(self._writer, user_id, time.time())
        if history is None or history.profile is None:
            return False
        history.profile = None
        self._keep_rest(user_id, history)
        return True

    def _delete_events(self, user_id: str, chosen: EventChoice) -> int:
        history = read_history(self._writer, user_id, time.time())
        removed = 0 if history is None else history.remove(chosen)
        if history is not None and removed:
            self._keep_rest(user_id, history)
        return removed

    def _keep_rest(self, user_id: str, history: History) -> None:
        """Store what is left of a user, for as long as before."""
        if history.is_empty:
            forget_last(self._writer, user_id)
        else:
            replace_content(self._writer, user_id, history)

    def _read_at_once(self, user_id: str, window: int) -> StoredUser | None:
        """What is stored of a user, in the event loop; None where a thread shall read it."""
        started = time.monotonic()
        if started < self._wary_until:
            return None
        try:
            if not is_quickly_read(self._hasty, user_id, window):
                return None
            return read_newest(self._hasty, user_id, time.time(), window)
        except sqlite3.DatabaseError:
            # Whatever it is, a lock or a fault, the thread waits for it or tells it.
            return None
        finally:
            if (ended := time.monotonic()) - started > _SLOW_SECONDS:
                self._wary_until = ended + _WARY_SECONDS

    def _with_reader(self, call: Callable[[sqlite3.Connection], _T]) -> _T:
        # As many connections as threads, so there is always an idle one.
        connection = self._idle.get()
        try:
            return call(connection)
        finally:
            self._idle.put(connection)

    def _forget(self, user_id: str, deadline: float) -> bool:
        try:
            return self._transaction(partial(self._delete, user_id), deadline)
        except sqlite3.DatabaseError as error:
            if not is_malformed(error):
                raise
        # Not in one transaction with what meets such pages.
        if is_known := self._knows(user_id):
            self._tidying.bury(user_id, deadline)
        return is_known

    def _delete(self, user_id: str) -> bool:
        is_known = self._knows(user_id)
        # What has expired is known no more, and goes all the same.
        forget_history(self._writer, user_id)
        return is_known

    def _knows(self, user_id: str) -> bool:
        try:
            return read_history(self._writer, user_id, time.time()) is not None
        except HistoryDamaged:
            # It is there, and shall not be.
            return True

    def _close_connections(self) -> None:
        for connection in self._connections:
            connection.close()
