"""What leaves a SQLite file, and what that costs those who wait."""

import asyncio
import sqlite3
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from server.histories import Event, open_history_store
from server.histories import sqlite_tidying as tidying_module
from server.histories.sqlite import SqliteHistoryStore

INDEX = "name = 'histories_by_expiry'"


async def opened(path: Path, **options: object) -> SqliteHistoryStore:
    """A store whose first look has been."""
    store = open_history_store(f"sqlite:///{path}", **options)
    assert isinstance(store, SqliteHistoryStore)
    await store.append("somebody", [Event("a", 1.0)])
    return store


def checkpoints(store: SqliteHistoryStore) -> list[str]:
    """The statements that empty the log, from now on."""
    found: list[str] = []
    store._writer.set_trace_callback(lambda statement: found.append(statement) if "wal_checkpoint" in statement else None)
    return found


async def changed(path: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    """Change the file, its schema included, on a connection that has read none."""
    other = sqlite3.connect(path)
    with other:
        other.execute("PRAGMA writable_schema = ON")
        for statement, values in statements:
            other.execute(statement, values)
    other.close()


async def test_an_entry_of_the_index_without_a_row_is_not_looked_for_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, now = tmp_path / "histories.db", time.time()
    store = await opened(path, ttl_seconds=60)
    await store.close()
    with sqlite3.connect(path) as other:
        (index,) = other.execute(f"SELECT * FROM sqlite_master WHERE {INDEX}").fetchall()
    other.close()
    await changed(path, (f"DELETE FROM sqlite_master WHERE {INDEX}", ()))
    await changed(path, ("DELETE FROM histories", ()))
    await changed(path, ("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", index))
    store = await opened(path, ttl_seconds=60)
    monkeypatch.setattr(time, "time", lambda: now + 50)
    await store.append("kept", [Event("a", 1.0)])
    monkeypatch.setattr(time, "time", lambda: now + 100)
    # `somebody` of this store goes, the entry of the other stays.
    looks = [await asyncio.wrap_future(store._writing.submit(store._tidying.look, time.monotonic() + 5)) for _ in range(2)]
    assert looks == [True, False]
    assert len(await store.read("kept")) == 1
    await store.close()


async def test_a_log_that_a_reader_holds_costs_writes_one_wait_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = [1000.0]
    monkeypatch.setattr(tidying_module, "time", SimpleNamespace(time=time.time, monotonic=lambda: clock[0]))
    store = await opened(tmp_path / "histories.db")
    await store.append_many({f"user {number}": [Event("secret", 1.0)] for number in range(22)})
    emptied = checkpoints(store)
    with sqlite3.connect(tmp_path / "histories.db", isolation_level=None) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM histories").fetchall()
        for number in range(20):
            assert await store.delete(f"user {number}") is True
        await store.append("ann", [Event("a", 1.0)])
        assert len(emptied) == 1
        clock[0] += 1
        assert await store.delete("user 20") is True
        assert len(emptied) == 2
        other.execute("COMMIT")
    other.close()
    # As a look does, whenever that comes.
    assert store._tidying.look(clock[0]) is False
    assert len(emptied) == 3
    assert (tmp_path / "histories.db-wal").read_bytes() == b""
    await store.close()


async def test_deletions_that_come_together_empty_the_log_once_before_they_are_answered(tmp_path: Path):
    store = await opened(tmp_path / "histories.db")
    users = [f"user {number}" for number in range(100)]
    await store.append_many({user: [Event("secret", 1.0)] for user in users})
    emptied = checkpoints(store)
    held: list[bytes] = []

    async def delete(user: str) -> None:
        assert await store.delete(user) is True
        held.append((tmp_path / "histories.db-wal").read_bytes())

    await asyncio.gather(*map(delete, users))
    assert len(emptied) == 1
    assert set(held) == {b""}
    assert await store.delete("nobody") is False
    assert len(emptied) == 1
    await store.close()


async def test_a_store_that_nobody_closes_is_looked_at_until_the_program_ends(tmp_path: Path):
    store = await opened(tmp_path / "histories.db")
    # As the interpreter does at its end.
    store._writing.shutdown()
    look: Future[bool] = Future()
    look.set_result(True)
    store._keep_tidy(look)
    await store.close()
