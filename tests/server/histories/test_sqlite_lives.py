"""Limited times to live in a SQLite file that a disk has damaged."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.histories import Event, EventChoice, open_history_store
from server.histories.sqlite import SqliteHistoryStore
from tests.server.histories.test_sqlite_file import DAMAGES, damage, looked_through

USERS = [f"<{number}>" for number in range(300)]


@pytest.mark.parametrize("user", [USERS[0], USERS[150], USERS[-1]])
async def test_users_of_a_damaged_page_are_passed_over_and_counted(tmp_path: Path, user: str):
    path = tmp_path / "histories.db"
    passed: list[int] = []
    store = open_history_store(f"sqlite:///{path}")
    for start in range(0, 300, 50):
        await store.append_many({each: [Event(f"of-{each}" + "x" * 50, 1.0)] for each in USERS[start : start + 50]})
    await store.close()
    damage(path, f"of-{user}".encode(), lambda page: bytes(4096))
    store = open_history_store(f"sqlite:///{path}", ttl_seconds=3000)
    limited = await store.limit_lives([].append, passed.append)
    assert 5 < sum(passed) < 100
    assert limited + sum(passed) == 300
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM histories WHERE expires_at > 0").fetchall() == [(limited,)]
    other.close()
    await store.close()


@pytest.mark.parametrize("change", [change for _, change in DAMAGES], ids=[name for name, _ in DAMAGES])
async def test_who_was_deleted_behind_a_damaged_page_stays_so(
    tmp_path: Path, change: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
):
    path, now = tmp_path / "histories.db", time.time()
    store = open_history_store(f"sqlite:///{path}")
    for user in ("ann", "bob", "carl"):
        await store.append(user, [Event(f"{user}-item-{number}" + "x" * 50, float(number)) for number in range(200)])
    await store.close()
    damage(path, b"bob-item-100", change)
    store = open_history_store(f"sqlite:///{path}", ttl_seconds=3000)
    assert await store.delete("bob") is True
    assert await store.limit_lives([].append, [].append) == 2
    monkeypatch.setattr(time, "time", lambda: now + 4000)
    await store.append("carl", [Event("new", 1e3)])
    assert [len(await store.read(user)) for user in ("ann", "bob", "carl")] == [0, 0, 1]
    await store.close()


@pytest.mark.parametrize("change", [change for _, change in DAMAGES], ids=[name for name, _ in DAMAGES])
async def test_who_was_deleted_behind_a_damaged_page_stays_so_when_what_came_later_has_expired(
    tmp_path: Path, change: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
):
    path, now = tmp_path / "histories.db", time.time()
    store = open_history_store(f"sqlite:///{path}")
    await store.append("bob", [Event(f"bob-item-{number}" + "x" * 50, float(number)) for number in range(200)])
    await store.close()
    damage(path, b"bob-item-100", change)
    store = open_history_store(f"sqlite:///{path}", ttl_seconds=3000)
    assert isinstance(store, SqliteHistoryStore)
    assert await store.delete("bob") is True
    assert await store.append("bob", [Event("later", 1e3)]) == 1
    monkeypatch.setattr(time, "time", lambda: now + 4000)
    await looked_through(store)
    assert await store.read("bob") == []
    assert await store.delete("bob") is False
    await store.close()


async def test_who_gets_an_event_while_lives_are_limited_stays_as_long_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = [begun := time.time()]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    store = open_history_store(f"sqlite:///{tmp_path}/histories.db")
    # More than are looked at together.
    await store.append_many({f"<{number}>": [Event("a", 1.0)] for number in range(60)})
    await store.close()
    store = open_history_store(f"sqlite:///{tmp_path}/histories.db", ttl_seconds=3000)
    clock[0] = begun + 50
    await store.append("ann", [Event("b", 2.0)])
    clock[0] = begun

    def tell(_: int) -> None:
        clock[0] = begun + 60

    assert await store.limit_lives(tell, [].append) == 60
    clock[0] = begun + 3049
    assert await store.read("ann") == [Event("b", 2.0)]
    await store.close()


async def test_a_row_that_another_process_has_written_meanwhile_is_not_hidden(tmp_path: Path):
    """Its deletion failed because of a page beside it, and its user came again before the row was to be hidden."""
    store = open_history_store(f"sqlite:///{tmp_path}/histories.db", ttl_seconds=3000)
    assert isinstance(store, SqliteHistoryStore)
    await store.append("ann", [Event("a", 1.0)])
    for now in (time.time(), time.time() + 4000):
        assert await store.read("ann") == [Event("a", 1.0)]
        await asyncio.wrap_future(store._writing.submit(store._tidying._hide, 1, now, time.monotonic() + 5))
    assert await store.read("ann") == []
    await store.close()


@pytest.mark.parametrize(
    ("intact", "damaged"), [(b"bob-the-user", b"\xe2ob-the-user"), (b"\x25\x07", b"\x24\x07")], ids=["no text any more", "bytes"]
)
async def test_a_damaged_name_that_expires_costs_no_other_user(
    tmp_path: Path, intact: bytes, damaged: bytes, monkeypatch: pytest.MonkeyPatch
):
    path, now = tmp_path / "histories.db", time.time()
    store = open_history_store(f"sqlite:///{path}", ttl_seconds=60)
    await store.append("bob-the-user", [Event("a", 1.0)])
    await store.close()
    damage(path, b"bob-the-user", lambda page: page.replace(intact, damaged, 1))
    monkeypatch.setattr(time, "time", lambda: now + 100)
    store = open_history_store(f"sqlite:///{path}", ttl_seconds=60)
    assert isinstance(store, SqliteHistoryStore)
    await looked_through(store)
    assert await store.append("ann", [Event("a", 1.0)]) == 1
    assert await store.read("bob-the-user") == []
    await store.close()


@pytest.mark.parametrize("change", [change for _, change in DAMAGES], ids=[name for name, _ in DAMAGES])
async def test_who_comes_again_behind_a_damaged_page_is_deleted_as_others_are(tmp_path: Path, change: Callable[[bytes], bytes]):
    path = tmp_path / "histories.db"
    store = open_history_store(f"sqlite:///{path}")
    await store.append("bob", [Event(f"bob-item-{number}" + "x" * 50, float(number)) for number in range(200)])
    await store.close()
    damage(path, b"bob-item-100", change)
    store = open_history_store(f"sqlite:///{path}")
    assert await store.delete("bob") is True
    assert await store.append("bob", [Event("later", 1e3, "id")]) == 1
    # With it the user is as one of whom nothing was ever stored, whatever damage keeps.
    assert await store.delete_events("bob", EventChoice(event_id="id")) == 1
    await store.put_profile("bob", {"age": 30})
    assert await store.delete_profile("bob") is True
    assert await store.append("bob", [Event("secret", 1e3)]) == 1
    assert await store.delete("bob") is True
    assert await store.read("bob") == []
    await store.close()
    with sqlite3.connect(path) as other:
        kept = other.execute("SELECT rowid FROM histories WHERE rowid > 1 AND instr(history, CAST('secret' AS BLOB))").fetchall()
    other.close()
    assert kept == []
