"""What only the SQLite file must stand: kills, other processes, strange paths."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from server.histories import Event, EventChoice, check_there, open_history_store
from server.histories import sqlite as sqlite_store
from server.histories.sqlite_file import read_newest
from server.try_again import HistoryUnavailable

WRITER = """
import asyncio, sys
from server.histories import Event, open_history_store

async def main():
    store = open_history_store(sys.argv[1], max_events=10**6, timeout_seconds=30)
    for number in range(int(sys.argv[2])):
        await store.append("ann", [Event(f"{sys.argv[3]} {number}", float(number))])
        print(number, flush=True)

asyncio.run(main())
"""


def start_writer(url, count, name):
    return subprocess.Popen([sys.executable, "-c", WRITER, url, str(count), name], stdout=subprocess.PIPE, text=True)


async def test_what_was_acknowledged_survives_a_kill(tmp_path):
    url = f"sqlite:///{tmp_path}/histories.db"
    writer = start_writer(url, 10**6, "w")
    acknowledged = [int(writer.stdout.readline()) for _ in range(20)]
    writer.kill()
    acknowledged += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
    writer.wait()
    store = open_history_store(url)
    assert len(await store.read("ann")) in (len(acknowledged), len(acknowledged) + 1)
    await store.close()


async def test_processes_that_start_together_share_one_file(tmp_path):
    url = f"sqlite:///{tmp_path}/histories.db"
    writers = [start_writer(url, 10, name) for name in ("a", "b", "c")]
    assert [(writer.communicate()[0].count("\n"), writer.returncode) for writer in writers] == [(10, 0)] * 3
    store = open_history_store(url)
    assert len(await store.read("ann")) == 30
    await store.close()


async def test_a_history_outlives_its_store(tmp_path):
    url = f"sqlite:///{tmp_path}/new/folders/histories.db"
    store = open_history_store(url)
    await store.append("ann", [Event("a", 1.0, "e1")])
    await store.close()
    store = open_history_store(url)
    assert await store.append("ann", [Event("a", 1.0, "e1"), Event("b", 1.0)]) == 1
    assert [event.item_id for event in await store.read("ann")] == ["a", "b"]
    await store.close()


async def test_paths_are_relative_absolute_or_of_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for url, path in [
        ("sqlite:///near/h.db", "near/h.db"),
        (f"sqlite:///{tmp_path}/far/h 100%?.db", "far/h 100%?.db"),
        ("sqlite:///~/h.db", "home/h.db"),
    ]:
        store = open_history_store(url)
        await store.close()
        assert (tmp_path / path).is_file()


async def test_a_writer_elsewhere_is_waited_for_and_then_reported(tmp_path):
    path = tmp_path / "histories.db"
    store = open_history_store(f"sqlite:///{path}", timeout_seconds=0.2)
    await store.append("ann", [Event("a", 1.0)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begun = time.monotonic()
    with pytest.raises(HistoryUnavailable, match=r"histories\.db cannot be used: database is locked\.$"):
        await store.append("ann", [Event("b", 2.0)])
    # The driver's own patience is 5 s.
    assert 0.15 < time.monotonic() - begun < 4
    assert await store.read("ann") == [Event("a", 1.0)]
    other.execute("COMMIT")
    other.close()
    assert await store.append("ann", [Event("b", 2.0)]) == 1
    await store.close()


async def test_a_waiting_append_does_not_block_the_event_loop(tmp_path):
    path = tmp_path / "histories.db"
    store = open_history_store(f"sqlite:///{path}", timeout_seconds=10)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    append = asyncio.create_task(store.append("ann", [Event("a", 1.0)]))
    await asyncio.sleep(0.05)
    assert not append.done()
    other.execute("COMMIT")
    other.close()
    assert await append == 1
    await store.close()


@pytest.mark.parametrize("content", ["PRAGMA user_version = 99", "CREATE TABLE history_users (x)"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute(content)
    other.close()
    with pytest.raises(ValueError, match=r"^The history file .*other\.db cannot be opened: .*\.$"):
        open_history_store(f"sqlite:///{path}")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and long enough to have a header" * 100)
    with pytest.raises(ValueError, match="not a database"):
        open_history_store(f"sqlite:///{path}")
    assert path.read_text().startswith("not a database")


async def test_a_demo_sized_load_takes_seconds(tmp_path):
    """1,000 users of 100 events; the bound is loose, for a busy machine, and tight enough to notice a sync or a scan per event."""
    store = open_history_store(f"sqlite:///{tmp_path}/histories.db")
    histories = {f"user {u}": [Event(f"item {t}", float(t), f"{u}-{t}") for t in range(100)] for u in range(1000)}
    begun = time.monotonic()
    assert await store.append_many(histories) == 100_000
    assert time.monotonic() - begun < 15
    await store.close()


async def test_expired_users_leave_the_file(tmp_path):
    path = tmp_path / "histories.db"
    store = open_history_store(f"sqlite:///{path}", ttl_seconds=0.05)
    await store.append_many({f"user {u}": [Event("a", 1.0)] for u in range(5)})
    await asyncio.sleep(0.1)
    await store.append("ann", [Event("a", 1.0)])
    await store.close()
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT user_id FROM histories").fetchall() == [("ann",)]
    other.close()


async def test_who_has_expired_leaves_the_file_at_start_and_when_deleted(tmp_path, monkeypatch):
    path = tmp_path / "histories.db"
    now = time.time()
    store = open_history_store(f"sqlite:///{path}", ttl_seconds=60)
    await store.append_many({f"secret-{number}": [Event("met-by-them", 1.0)] for number in range(150)})
    monkeypatch.setattr(time, "time", lambda: now + 100)
    # Known no more, and gone all the same.
    assert await store.delete("secret-7") is False
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM histories").fetchall() == [(149,)]
        await store.close()
        # Nobody writes to it.
        await open_history_store(f"sqlite:///{path}").close()
        assert other.execute("SELECT * FROM histories").fetchall() == []
    other.close()


async def test_what_is_deleted_is_in_no_byte_of_any_file(tmp_path):
    store = open_history_store(f"sqlite:///{tmp_path}/histories.db")
    ann = [Event(f"secret-{number}.", float(number), f"id-{number}") for number in range(300)]
    forget: list = [
        lambda: store.delete("ann"),
        lambda: store.delete_profile("ann"),
        lambda: store.delete_events("ann", EventChoice(item_id="secret-7.")),
    ]
    for secret, erase in zip((b"ann", b"known-of-her", b"secret-7."), forget, strict=True):
        await store.append_many({"ann": ann, "bob": [Event("kept", 1.0, "e1")]})
        await store.put_profile("ann", {"known-of-her": 1})
        assert any(secret in file.read_bytes() for file in tmp_path.iterdir())
        assert await erase()
        assert {file.name: secret in file.read_bytes() for file in tmp_path.iterdir()} == dict.fromkeys(
            ("histories.db", "histories.db-wal", "histories.db-shm"), False
        )
    assert await store.read("bob") == [Event("kept", 1.0, "e1")]
    await store.close()


async def test_a_log_that_a_reader_holds_is_emptied_later(tmp_path):
    store = open_history_store(f"sqlite:///{tmp_path}/histories.db")
    await store.append("ann", [Event("secret", 1.0)])
    log = tmp_path / "histories.db-wal"
    with sqlite3.connect(tmp_path / "histories.db", isolation_level=None) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM histories").fetchall()
        assert await store.delete("ann") is True
        assert b"secret" in log.read_bytes()
        other.execute("COMMIT")
    other.close()
    assert store._tidying.look(time.monotonic() + 1) is False
    assert log.read_bytes() == b""
    await store.close()


async def test_users_are_read_at_once_until_a_read_is_slow_or_can_not_be(tmp_path, monkeypatch):
    threads, clock = [], [1000.0]
    monkeypatch.setattr(sqlite_store, "time", SimpleNamespace(time=time.time, monotonic=lambda: clock[0]))

    def reading(connection, user_id, now, count):
        threads.append(threading.current_thread().name.rpartition("_")[0] or "loop")
        if user_id == "locked" and threads[-1] == "loop":
            raise sqlite3.OperationalError("database is locked")
        if user_id == "far":
            clock[0] += 2 * sqlite_store._SLOW_SECONDS
        return read_newest(connection, user_id, now, count)

    monkeypatch.setattr(sqlite_store, "read_newest", reading)
    store = open_history_store(f"sqlite:///{tmp_path}/histories.db")
    for user in ("near", "locked", "far"):
        await store.append(user, [Event(user, 1.0)])
    await store.append("large", [Event("x" * 300, float(number)) for number in range(1000)])
    await store.append("many", [Event("x", float(number)) for number in range(1000)])
    users = ("near", "locked", "near", "large", "far", "near")
    shown = [(await store.read(user, 5))[-1].item_id for user in users]
    assert shown == ["near", "locked", "near", "x" * 300, "far", "near"]
    assert threads == ["loop", "loop", "sqlite-reading", "loop", "sqlite-reading", "loop", "sqlite-reading"]
    clock[0] += sqlite_store._WARY_SECONDS
    for user, limit in (("near", 5), ("near", None), ("many", 200), ("many", 201), ("many", None)):
        await store.read(user, limit)
    assert threads[-5:] == ["loop", "loop", "loop", "sqlite-reading", "sqlite-reading"]
    await store.close()


def test_a_file_that_cannot_be_looked_for_is_told_where_it_is_opened():
    url = f"sqlite:///{'x' * 300}"
    check_there(url)
    with pytest.raises(ValueError, match=r"cannot be opened: .*File name too long"):
        open_history_store(url)
