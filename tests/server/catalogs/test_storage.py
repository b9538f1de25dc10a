"""Disks that are full, directories that can't be written, names that two want, and servers that are killed at any moment."""

import asyncio
import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drafting.catalog.artefact import save_artefact
from server.control import Write
from server.control.records import LeftVersion, version_left
from server.control.sqlite import SqliteControlStore
from server.errors import StorageFull, VersionExists
from server.try_again import ControlFull, ControlUnavailable
from tests.server.catalogs.shop import ONE, START, TWO, Shop, open_shop, opened, take_any_catalog

WRITES = ("write", "fsync", "replace", "open", "unlink", "ftruncate")
KILLS = 8


@pytest.fixture(autouse=True)
def willing_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    take_any_catalog(monkeypatch)


class FullDisk:
    """Lets so many calls that write pass, and fails the next one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 10**9
        self.calls = 0
        for name in WRITES:
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name)))
        write = SqliteControlStore.write

        async def counted(*arguments: Any) -> Write:
            self.calls += 1
            self.left -= 1
            if self.left == -1:
                raise ControlUnavailable("The disk is full.")
            return await write(*arguments)

        monkeypatch.setattr(SqliteControlStore, "write", counted)

    def _wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            self.left -= 1
            if self.left == -1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*arguments, **options)

        return counted


async def served_after_restart(shop: Shop) -> tuple[str, list[str]]:
    shop.catalogs.files.close()
    async with opened(shop.directory.parent) as again:
        return again.catalogs.active.name, sorted(again.catalogs.versions())


async def add_one(shop: Shop) -> None:
    await shop.add("two", TWO)


async def activate_one(shop: Shop) -> None:
    await shop.activate("one")


async def add_and_activate(shop: Shop) -> None:
    async with shop.catalogs.changing:
        unfinished = shop.catalogs.files.unfinished()
        try:
            path = shop.catalogs.files.publish(unfinished, save_artefact(TWO, unfinished))
            try:
                await extend(shop, "two", path)
            finally:
                await shop.catalogs.discard(path)
        finally:
            shop.catalogs.files.discard(unfinished)


async def extend(shop: Shop, version: str, path: Path) -> None:
    with shop.catalogs.candidate() as candidate:
        await shop.catalogs.follower.decide(lambda: shop.switch.extend(candidate, shop.catalogs.active, version, "new items", path))


async def remove_one(shop: Shop) -> None:
    async with shop.catalogs.changing:
        await shop.catalogs.remove("one")


CHANGES = [add_one, activate_one, add_and_activate, remove_one]


@pytest.mark.parametrize("change", CHANGES)
async def test_a_write_that_fails_changes_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., Any]
) -> None:
    """Every call that writes fails in turn; served, told by metrics, on the disk and served after a restart are the same each time."""
    outcomes = []
    for number in range(50):
        folder = tmp_path / str(number)
        folder.mkdir()
        shop = await open_shop(folder)
        await shop.add("one", ONE)
        with monkeypatch.context() as patch:
            disk = FullDisk(patch)
            disk.left = number
            try:
                await change(shop)
                outcomes.append(True)
            except (StorageFull, ControlUnavailable, OSError):
                outcomes.append(False)
        versions, active = sorted(shop.catalogs.versions()), shop.catalogs.active.name
        assert shop.named_by_metric == active
        assert shop.catalogs.history[-1].version == active
        assert await served_after_restart(shop) == (active, versions)
        named = {path.name for path in shop.directory.glob("sha256-*")}
        assert len(named) == len(versions) - 1 or not outcomes[-1]
        expected = {
            add_one: "two" in versions,
            activate_one: active == "one",
            add_and_activate: active == "two",
            remove_one: "one" not in versions,
        }
        assert expected[change] == outcomes[-1]
        if disk.calls <= number:
            break
    assert outcomes[-1]
    # A write to the control store is one call; a file takes several.
    assert outcomes.count(False) >= (1 if change in (activate_one, remove_one) else 4)
    assert disk.calls <= number


async def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        shop = await open_shop(tmp_path)
        await shop.add("one", ONE)
        filler = tmp_path / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(2**20))
        # What is left of the control file is enough for a line or two.
        with pytest.raises(ControlFull, match="database or disk is full"):
            await activate_in_turn(shop, 100)
        active, versions, history = shop.catalogs.active.name, sorted(shop.catalogs.versions()), len(shop.catalogs.history)
        assert shop.named_by_metric == active
        assert await served_after_restart(shop) == (active, versions)
        filler.unlink()
        await shop.activate("one")
        assert (await served_after_restart(shop))[0] == "one"
        assert len(shop.catalogs.history) == history + 1
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


async def activate_in_turn(shop: Shop, times: int) -> None:
    for _ in range(times):
        await shop.activate("one")
        await shop.activate(START.version)


async def test_a_directory_that_can_not_be_written_is_served_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shop = await open_shop(tmp_path)
    await shop.add("one", ONE)
    await shop.activate("one")
    await shop.close()
    if subprocess.run(["mount", "--bind", shop.directory, shop.directory], capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", shop.directory], check=True)
        shop = await open_shop(tmp_path)
        assert shop.catalogs.active.name == "one"
        assert "Read-only file system" in caplog.text
        with pytest.raises(ControlFull, match="attempt to write a readonly database"):
            await shop.activate(START.version)
        with pytest.raises(OSError, match="Read-only file system"):
            await shop.add("two", TWO)
        assert shop.catalogs.active.name == shop.named_by_metric == "one"
        await shop.close()
    finally:
        subprocess.run(["umount", "-l", shop.directory], check=True)
    async with opened(tmp_path) as shop:
        await shop.activate(START.version)
    async with opened(tmp_path) as shop:
        assert [entry.by for entry in shop.catalogs.history] == ["start", "a test", "restart", "a test", "start"]


async def test_names_are_judged_when_they_take_effect(tmp_path: Path) -> None:
    shop = await open_shop(tmp_path)
    results = await asyncio.gather(*(shop.add("v1", catalog) for catalog in (ONE, TWO, ONE)), return_exceptions=True)
    assert sorted(map(str, results)) == ["None", *["There is a version 'v1' already; versions do not change."] * 2]
    assert {type(result) for result in results} == {type(None), VersionExists}
    winner = (ONE, TWO, ONE)[results.index(None)]
    await shop.activate("v1")
    assert shop.catalogs.active.catalog.version == winner.version
    assert len(list(shop.directory.glob("sha256-*"))) == 1
    assert (await served_after_restart(shop))[0] == "v1"


async def test_a_name_that_new_items_are_about_to_get_is_theirs(tmp_path: Path) -> None:
    shop = await open_shop(tmp_path)
    async with shop.catalogs.changing:
        putting = asyncio.create_task(shop.add("items-1", ONE))
        await asyncio.sleep(0.05)
        unfinished = shop.catalogs.files.unfinished()
        path = shop.catalogs.files.publish(unfinished, save_artefact(TWO, unfinished))
        await extend(shop, "items-1", path)
    with pytest.raises(VersionExists):
        await putting
    assert shop.catalogs.active.catalog.version == TWO.version
    assert [path.name for path in shop.directory.glob("sha256-*")] == [path.name]
    async with opened(tmp_path) as again:
        assert (again.catalogs.active.name, again.catalogs.active.catalog.version) == ("items-1", TWO.version)


async def test_equal_contents_share_a_file_until_the_last_version_is_gone(tmp_path: Path) -> None:
    shop = await open_shop(tmp_path)
    for name in ("a", "b"):
        await shop.add(name, ONE)
    for name in ("a", "b"):
        assert len(list(shop.directory.glob("sha256-*"))) == 1
        async with shop.catalogs.changing:
            await shop.catalogs.remove(name)
    assert not list(shop.directory.glob("sha256-*"))
    assert all(path.name.startswith("control.db") for path in shop.directory.iterdir())


async def test_what_a_killed_server_has_left_is_deleted_unless_another_server_may_need_it(tmp_path: Path) -> None:
    shop = await open_shop(tmp_path)
    leftovers = [shop.directory / name for name in (".unfinished-1.jsonl", ".unfinished-2.catalog", "sha256-00.catalog")]
    for path in leftovers:
        path.touch()
    kept = shop.directory / "mine.jsonl"
    kept.touch()
    async with opened(tmp_path):
        assert all(path.exists() for path in leftovers)
    await shop.close()
    async with opened(tmp_path):
        """Cleaned up."""
    assert not any(path.exists() for path in leftovers)
    assert kept.exists()


async def test_files_from_before_the_state_are_kept(tmp_path: Path) -> None:
    """Whose control store is lost, or is another one from now on, finds them again when it is restored."""
    directory = tmp_path / "catalogs"
    directory.mkdir()
    (directory / "sha256-00.catalog").touch()
    for _ in range(2):
        async with opened(tmp_path):
            assert (directory / "sha256-00.catalog").exists()


async def test_nobody_can_call_himself_a_start(tmp_path: Path) -> None:
    """The name of who activates a version is the client's; a restart must not take it for its own note."""
    async with opened(tmp_path) as shop:
        await shop.add("one", ONE)
        async with shop.catalogs.changing:
            await shop.switch.serve("one", "start")
    async with opened(tmp_path) as shop:
        assert shop.catalogs.active.name == "one"


@pytest.mark.parametrize("kind", ["directory", "pipe", "loop"])
async def test_what_is_no_file_is_no_version(tmp_path: Path, kind: str) -> None:
    shop = await open_shop(tmp_path)
    path = shop.directory / "odd.catalog"
    {"directory": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path)}[kind]()
    async with opened(tmp_path) as again:
        assert "odd" not in again.catalogs.versions()


async def test_a_version_whose_file_can_not_be_deleted_stays(tmp_path: Path) -> None:
    folder = tmp_path / "catalogs"
    folder.mkdir()
    save_artefact(ONE, folder / "brought.catalog")
    shop = await open_shop(tmp_path)
    (folder / "brought.catalog").unlink()
    (folder / "brought.catalog").mkdir()
    async with shop.catalogs.changing:
        await shop.catalogs.follower.write(version_left(LeftVersion("brought", 1.0, "Two engines died with it.")))
        with pytest.raises(StorageFull, match=r"The file of the version can't be deleted: Is a directory\."):
            await shop.catalogs.remove("brought")
    assert "brought" in shop.catalogs.versions()
    assert [left.version for left in shop.catalogs.left] == ["brought"]


def acknowledged(process: "subprocess.Popen[str]", lines: int) -> Iterator[tuple[str, str]]:
    assert process.stdout is not None
    for _ in range(lines):
        what, _, name = process.stdout.readline().strip().partition(" ")
        yield what, name
    process.send_signal(signal.SIGKILL)
    for line in process.stdout:
        if line.endswith("\n"):
            what, _, name = line.strip().partition(" ")
            yield what, name


async def test_what_was_acknowledged_survives_a_kill_at_any_moment(tmp_path: Path) -> None:
    rng = random.Random(0)
    versions: set[str] = set()
    active = START.version
    for seed in range(KILLS):
        command = [sys.executable, "-m", "tests.server.catalogs.changing", str(tmp_path), str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines = list(acknowledged(process, rng.randrange(1, 30)))
        unsure: set[str] = set()
        for what, name in lines:
            if what == "active":
                active = name
            elif what == "removing":
                unsure.add(name)
            versions = versions | {name} if what == "added" else versions - {name} if what == "removed" else versions
        shop = await open_shop(tmp_path)
        found = set(shop.catalogs.versions())
        assert versions - unsure <= found
        # The last change may have come to the disk and not to an answer.
        assert len(found - versions - {START.version}) <= 1
        assert shop.catalogs.active.name in {active, f"v{seed}-{max([-1, *numbers(lines)])}"}
        versions, active = found - {START.version}, shop.catalogs.active.name
        files = {path.name for path in shop.directory.glob("*")}
        assert all(name.startswith(("sha256-", "control.db")) for name in files)
        assert shop.catalogs.active.catalog.version == (await shop.catalogs.load(shop.catalogs.active.name)).catalog.version
        await shop.close()


def numbers(lines: list[tuple[str, str]]) -> Iterator[int]:
    return (int(name.rpartition("-")[2]) for what, name in lines if what == "added")
