"""What a server that was killed has left about engines that died."""

import os
import time
from pathlib import Path

import pytest

from server.catalogs.deaths import AGAIN_SECONDS, DEATHS, DeathFile, Deaths
from server.catalogs.files import VersionFiles
from server.catalogs.tidying import UNFINISHED_SECONDS, tidy
from tests.server.http.test_app import Bench


@pytest.mark.parametrize("written", [b"", b"{", b"[]", b"\xff", b'{"version": 1}', b'{"version": "another", "count": 9}'])
def test_what_can_not_be_read_or_is_of_another_version_is_not_known(tmp_path: Path, written: bytes) -> None:
    path = tmp_path / "deaths"
    assert DeathFile(path).read("v") == Deaths("v")
    path.write_bytes(written)
    assert DeathFile(path).read("v") == Deaths("v")


def test_what_can_not_be_written_is_told_once_and_keeps_nobody_from_serving(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = DeathFile(tmp_path / "missing" / "deaths")
    for count in range(3):
        file.write(Deaths("v", count))
    assert len(caplog.records) == 1
    file.forget()


def test_servers_that_share_a_directory_have_files_of_their_own(tmp_path: Path) -> None:
    for port in (8000, 8001):
        DeathFile.of(tmp_path, "127.0.0.1", port).write(Deaths("v", port))
    assert [DeathFile.of(tmp_path, "127.0.0.1", port).read("v").count for port in (8000, 8001)] == [8000, 8001]


@pytest.mark.parametrize(("has_directory", "port"), [(False, 8000), (True, 0)])
def test_nothing_is_kept_where_the_server_would_not_find_it_again(tmp_path: Path, has_directory: bool, port: int) -> None:
    file = DeathFile.of(tmp_path if has_directory else None, "127.0.0.1", port)
    file.write(Deaths("v", 1))
    assert file.read("v") == Deaths("v")
    file.forget()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_a_server_has_left_for_ever_is_removed_and_one_in_use_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, now = DeathFile.of(tmp_path, "127.0.0.1", 8000), time.monotonic()
    file.write(Deaths("v", 1))
    (used,) = tmp_path.iterdir()
    gone = tmp_path / f"{DEATHS}gone"
    gone.touch()
    for path in (used, gone):
        os.utime(path, (time.time() - UNFINISHED_SECONDS - 1,) * 2)
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * AGAIN_SECONDS)
    file.write(Deaths("v", 1))
    tidy(VersionFiles(tmp_path), [], 0.0)
    assert list(tmp_path.iterdir()) == [used]


async def test_a_server_keeps_its_file_beside_the_versions_and_takes_it_away_at_its_end(tmp_path: Path) -> None:
    guard = Bench(catalogs=str(tmp_path)).services.guard
    await guard.engine_starts()
    (path,) = tmp_path.iterdir()
    assert path.name.startswith(DEATHS)
    guard.end()
    assert list(tmp_path.iterdir()) == []
