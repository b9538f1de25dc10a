"""Temporary directories: gone with their owner, killed or not, and never while it lives."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.engine.directory import PREFIX, own_directory
from server.engine.shared_memory import FOLDER

OWNER = """
import time
from server.engine.directory import own_directory
with own_directory() as path:
    (path / "file").write_text("x")
    print(path, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def owner(temporary: Path) -> "tuple[subprocess.Popen[str], Path]":
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)}
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_owner_has_left_is_swept_by_the_next_and_what_lives_is_not(temporary: Path):
    (dead, rubbish), (alive, kept) = owner(temporary), owner(temporary)
    others = [temporary / "atspeed-models", temporary / f"{PREFIX}file"]
    others[0].mkdir()
    others[1].write_text("not a directory")
    (temporary / f"{PREFIX}link").symlink_to(others[0])
    try:
        dead.kill()
        dead.wait()
        assert (rubbish / "file").exists()
        with own_directory() as path:
            assert path.is_dir()
            assert path.stat().st_mode & 0o777 == 0o700
            assert not rubbish.exists()
            assert (kept / "file").exists()
        assert not path.exists()
        assert all(other.exists() for other in others)
    finally:
        alive.kill()
        alive.wait()


def test_many_at_once_each_have_their_own(temporary: Path):
    processes = [owner(temporary) for _ in range(4)]
    for _ in range(30):
        with own_directory() as path:
            assert path.is_dir()
    assert all((path / "file").exists() for _, path in processes)
    for process, _ in processes:
        process.kill()
        process.wait()


SHARER = """
import sys, time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from server.engine.directory import own_directory
from server.engine.shared_memory import write_down
with own_directory() as path:
    memory = SharedMemory(create=True, size=4096)
    write_down(path)
    print(memory.name, flush=True)
    time.sleep(60)
"""


def test_shared_memory_of_killed_processes_goes_with_their_directory(temporary: Path):
    environment = os.environ | {"TMPDIR": str(temporary)}
    process = subprocess.Popen([sys.executable, "-c", SHARER], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    assert process.stdout is not None
    file = FOLDER / process.stdout.readline().strip()
    assert file.exists()
    # Python's own tracker of such memory dies with it, as it does in an engine.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert file.exists()
    with own_directory():
        assert not file.exists()
