"""What only a file can do: be of something else, be readable by others; and a process that is killed while it writes."""

import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from server.control import Position, open_control_store
from server.errors import ControlUnavailable

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
