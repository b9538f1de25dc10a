"""A file that appears when it is complete, and goes on only with what it was begun for."""

from contextlib import suppress
from pathlib import Path

import pytest

from server.offline.output import ResumableFile


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


@pytest.mark.parametrize("state", [b"", b"[]", b'{"purpose": "a"}'])
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
