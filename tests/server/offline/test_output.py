"""A file that appears when it is complete, and goes on only with what it was begun for."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from server.offline import output
from server.offline.output import OutputError, PlainLines, ResumableFile

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def begin(path: Path, *lines: bytes, purpose: str = "a", seed: int = 1, torn: bytes = b"") -> None:
    with suppress(KeyboardInterrupt), ResumableFile(path, purpose, seed) as file:
        for line in lines:
            file.write(line)
        raise KeyboardInterrupt
    with path.with_name(f"{path.name}.part").open("ab") as part:
        part.write(torn)


def test_it_goes_on_after_the_last_complete_line(tmp_path: Path):
    path = tmp_path / "out"
    begin(path, b"one", b"two", torn=b"thr")
    assert not path.exists()
    with ResumableFile(path, "a", seed=2) as file:
        assert (file.done, file.seed) == (2, 1)
        file.write(b"three")
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    assert list(tmp_path.iterdir()) == [path]


def test_another_purpose_begins_anew(tmp_path: Path):
    path = tmp_path / "out"
    path.write_bytes(b"of an earlier run\n")
    begin(path, b"one")
    assert path.read_bytes() == b"of an earlier run\n"
    with ResumableFile(path, "b", seed=2) as file:
        assert (file.done, file.seed) == (0, 2)
        file.write(b"other")
    assert path.read_bytes() == b"other\n"


def test_lines_that_nobody_can_vouch_for_leave_nothing(tmp_path: Path):
    path = tmp_path / "out"
    begin(path, b"one")
    with suppress(KeyboardInterrupt), ResumableFile(path, None, seed=2) as file:
        assert (file.done, file.seed, file.continuation) == (0, 2, PlainLines.continuation)
        file.write(b"of a pipe")
        raise KeyboardInterrupt
    assert not [*tmp_path.iterdir()]
    assert ResumableFile(path, "a", seed=3).done == 0


@pytest.mark.parametrize("state", [b"", b"[]", b'{"purpose": "a"}', b'{"purpose": "\xff"}'])
def test_a_part_that_nobody_can_vouch_for_is_not_used(tmp_path: Path, state: bytes):
    path = tmp_path / "out"
    begin(path, b"one")
    (tmp_path / "out.part.json").write_bytes(state)
    assert ResumableFile(path, "a", seed=2).done == 0


def test_a_link_stays_a_link(tmp_path: Path):
    link, path = tmp_path / "link", tmp_path / "out"
    link.symlink_to(path)
    with ResumableFile(link, "a", seed=1) as file:
        file.write(b"one")
    assert link.is_symlink()
    assert path.read_bytes() == b"one\n"


@pytest.mark.parametrize("purpose", ["a", "b", None])
def test_one_run_at_a_time_writes_a_file(tmp_path: Path, purpose: str | None):
    path = tmp_path / "out"
    link = tmp_path / "link"
    link.symlink_to(path)
    with ResumableFile(path, "a", seed=1) as file:
        file.write(b"one")
        with pytest.raises(OutputError, match=r"^Another run writes .*link: wait for it, or choose another --output\.$"):
            ResumableFile(link, purpose, seed=2)
        file.write(b"two")
    assert path.read_bytes() == b"one\ntwo\n"
    assert {*tmp_path.iterdir()} == {path, link}
    with ResumableFile(path, purpose, seed=2) as file:
        file.write(b"three")
    assert path.read_bytes() == b"three\n"


def test_a_run_that_began_as_another_finished_writes_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "out"
    first = ResumableFile(path, "a", seed=1)
    first.write(b"one")
    lock = output.fcntl.flock

    def finish_first(*asked: Any) -> None:
        """Lock the second's file after it has opened the first's, and the first has renamed it."""
        monkeypatch.setattr(output.fcntl, "flock", lock)
        first.__exit__(None, None, None)
        lock(*asked)

    monkeypatch.setattr(output.fcntl, "flock", finish_first)
    with ResumableFile(path, "a", seed=2) as second:
        assert second.done == 0
        second.write(b"other")
        assert path.read_bytes() == b"one\n"
    assert path.read_bytes() == b"other\n"


@pytest.mark.parametrize("purpose", ["a", "b", None])
@pytest.mark.parametrize("mine", ["a", None])
@pytest.mark.parametrize("is_table", [False, True])
def test_a_run_that_begins_as_another_lets_go_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, purpose: str | None, mine: str | None, is_table: bool
):
    path, part = tmp_path / "out", tmp_path / "out.part"
    begun: list[ResumableFile] = []

    def begin_another(name: str) -> None:
        """Begin another run when the part has lost its name."""
        release = getattr(Path, name)

        def let_go(place: Path, *more: Any, **options: Any) -> None:
            release(place, *more, **options)
            if place == part and not begun:
                begun.append(ResumableFile(path, purpose, seed=2))

        monkeypatch.setattr(Path, name, let_go)

    begin_another("unlink" if is_table else "replace")
    with ResumableFile(path, mine, 1, is_table) as file:
        file.write(b'{"error": "none."}')
    (another,) = begun
    assert (another.done, another.seed) == (0, 2)
    assert {each.name for each in tmp_path.iterdir()} == {"out", "out.part", *(["out.part.json"] if purpose else [])}
    another.write(b"two")
    another.__exit__(None, None, None)
    assert path.read_bytes() == b"two\n"
    assert [*tmp_path.iterdir()] == [path]


def test_a_part_that_can_not_be_renamed_is_gone_on_with(tmp_path: Path):
    path = tmp_path / "out"
    file = ResumableFile(path, "a", seed=1)
    path.mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        write(file, b"one")
    path.rmdir()
    again = ResumableFile(path, "a", seed=2)
    assert (again.done, again.seed) == (1, 1)


def test_a_file_system_without_locks_holds_lists_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(output.fcntl, "flock", refuse)
    with ResumableFile(tmp_path / "out", "a", seed=1) as file:
        file.write(b"one")
    assert (tmp_path / "out").read_bytes() == b"one\n"


def raise_full(*_: object) -> None:
    raise FULL


def write(file: PlainLines, *lines: bytes, error: BaseException | None = None) -> None:
    with file:
        for line in lines:
            file.write(line)
        if error is not None:
            raise error


def full_device() -> PlainLines:
    return PlainLines(Path("/dev/full").open("wb"), 1)


@pytest.mark.parametrize(
    ("place", "name"), [("server.offline.output.os.fsync", "out"), ("server.offline.output.write_table", "out.parquet")]
)
def test_a_full_disk_is_a_sentence_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, name: str
) -> None:
    path, line, is_table = tmp_path / name, b'{"user_id": "ann", "error": "none"}', name.endswith("parquet")
    with monkeypatch.context() as patch:
        patch.setattr(place, raise_full)
        with pytest.raises(OutputError) as told:
            write(ResumableFile(path, "a", 1, is_table), line)
    assert str(told.value) == "The lists can't be written: No space left on device. The same command goes on from here."
    assert {each.name for each in tmp_path.iterdir()} == {f"{name}.part", f"{name}.part.json"}
    with ResumableFile(path, "a", 2, is_table) as file:
        assert (file.done, file.seed) == (1, 1)
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("lines", [1, 1000])
def test_a_full_device_is_a_sentence_whenever_it_is_found_out(lines: int) -> None:
    with pytest.raises(OutputError, match=r"No space left on device\. What comes from or goes to a pipe"):
        write(full_device(), *[b"x" * 100] * lines)


def test_what_went_wrong_first_is_told_where_the_rest_can_not_be_written_either() -> None:
    with pytest.raises(KeyboardInterrupt):
        write(full_device(), b"x", error=KeyboardInterrupt())
