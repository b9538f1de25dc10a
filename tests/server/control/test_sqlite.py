"""What only a file can do: be of something else, be readable by others; and a process that is killed while it writes."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.control import Position, open_control_store
from server.control import sqlite as control_sqlite
from server.try_again import ControlFull, ControlUnavailable

KILLED_WRITER = """
import asyncio, sys
from server.control import open_control_store

async def write():
    store = open_control_store(sys.argv[1])
    position = (await store.create({})).position
    print(position.generation, position.revision, position.write_id, flush=True)
    while True:
        position = (await store.write(position, "killed", {"key": bytes(20_000), "last": b"%d" % (position.revision + 1)})).position
        print(position.generation, position.revision, position.write_id, flush=True)

asyncio.run(write())
"""


async def test_no_acknowledged_write_is_lost_when_its_process_is_killed_between(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/control.db"
    writer = subprocess.Popen([sys.executable, "-c", KILLED_WRITER, url], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline() for _ in range(20)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += writer.stdout.readlines()
    writer.wait()
    positions = [Position(generation, int(revision), write_id) for generation, revision, write_id in map(str.split, acknowledged)]
    store = open_control_store(url)
    state, log = await store.state(), await store.writes(positions[0])
    assert state is not None
    assert log is not None
    assert [write.position for write in log][: len(positions) - 1] == positions[1:]
    assert 0 <= len(log) - (len(positions) - 1) <= 1
    assert state.position == log[-1].position
    assert state.values["last"] == b"%d" % state.position.revision
    await store.write(state.position, "after", {})
    await store.close()


async def test_a_write_is_seen_at_once_also_where_the_files_look_as_before(tmp_path: Path) -> None:
    def settle() -> None:
        for path in tmp_path.iterdir():
            os.utime(path, ns=(0, 0))

    store, other = (open_control_store(f"sqlite:///{tmp_path}/control.db") for _ in range(2))
    position = (await store.create({})).position
    # From here on the log is written over from its beginning, and does not grow.
    with sqlite3.connect(tmp_path / "control.db") as connection:
        for number in range(20):
            position = (await store.write(position, "a", {"key": b"%d" % number})).position
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
    connection.close()
    settle()
    started = time.monotonic()
    for number in range(5):
        waiting = asyncio.create_task(other.wait(position, 30))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        position = (await store.write(position, "a", {"key": b"%d" % number})).position
        settle()
        await waiting
        assert await other.position() == position
    assert time.monotonic() - started < 20
    for each in (store, other):
        await each.close()


async def test_a_position_is_read_only_after_something_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Position | None] = []

    def reading(connection: sqlite3.Connection) -> Position | None:
        read.append(found := position_of(connection))
        return found

    position_of = control_sqlite._position
    monkeypatch.setattr(control_sqlite, "_position", reading)
    store = open_control_store(f"sqlite:///{tmp_path}/control.db")
    assert [await store.position() for _ in range(3)] == [None] * 3
    created = (await store.create({})).position
    read.clear()
    assert [await store.position() for _ in range(3)] == [created] * 3
    assert read == [created]
    await store.close()


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    store = open_control_store(f"sqlite:///{tmp_path}/folder/control.db")
    await store.create({})
    for path in (tmp_path / "folder").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await store.close()


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (["CREATE TABLE films (title TEXT)"], "it holds tables of something else"),
        (["PRAGMA user_version = 9"], "its format is 9, and this release writes 1"),
        ([], "file is not a database"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, statements: list[str], reason: str) -> None:
    path = tmp_path / "control.db"
    if not statements:
        path.write_text("films\n" * 1000)
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.close()
    with pytest.raises(ValueError, match=rf"^The control file .*/control\.db cannot be opened: {reason}\.$"):
        open_control_store(f"sqlite:///{path}")


async def test_a_file_that_can_not_be_written_is_unavailable_in_a_sentence(tmp_path: Path) -> None:
    store = open_control_store(f"sqlite:///{tmp_path}/control.db")
    position = (await store.create({})).position
    other = sqlite3.connect(tmp_path / "control.db")
    other.execute("DROP TABLE entries")
    with pytest.raises(ControlUnavailable, match=r"^The control file .*/control\.db cannot be used: no such table: entries\.$"):
        await store.write(position, "a", {"key": b"1"})
    assert await store.position() == position
    other.close()
    await store.close()


async def test_a_file_that_can_not_grow_says_so_and_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = control_sqlite._prepare

    def bounded(connection: sqlite3.Connection) -> None:
        prepare(connection)
        connection.execute("PRAGMA max_page_count = 20")

    monkeypatch.setattr(control_sqlite, "_prepare", bounded)
    store = open_control_store(f"sqlite:///{tmp_path}/control.db")
    state = await store.create({"filter/one": b"1"})
    with pytest.raises(ControlFull, match=r"/control\.db cannot be used: database or disk is full\.$"):
        await store.write(state.position, "a", {"filter/two": bytes(200_000)})
    with pytest.raises(ControlFull):
        await store.replace({"filter/two": bytes(200_000)}, 0)
    assert await store.state() == state
    await store.close()
