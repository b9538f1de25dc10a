"""Environments of rivals: pinned commits of repositories, and failures that are sentences."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.rivals.entrants import RIVALS, STATIC
from benchmarks.rivals.environment import Environment, Repository, RivalError, prepare


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@x", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    """A repository whose second commit changes what the first one said, and the first commit."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for word in ("first", "second"):
        (folder / "code.py").write_text(f"WORD = {word!r}\n")
        git(folder, "add", "code.py")
        git(folder, "commit", "--quiet", "--message", word)
    return folder, git(folder, "rev-parse", "HEAD~1")


def test_a_repository_is_put_on_the_path_at_its_pinned_commit_and_kept(repository: tuple[Path, str], tmp_path: Path):
    folder, first = repository
    told: list[str] = []
    environment = Environment(repository=Repository("https://nowhere.invalid/x", first))
    for _ in range(2):
        prepared = prepare("x", environment, tmp_path / "cache", str(folder), told.append)
    assert len(told) == 1
    command = [str(prepared.python), "-c", "import code; print(code.WORD)"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(prepared.variables)).stdout
    assert answer == "first\n"


def test_what_cannot_be_fetched_is_a_sentence_and_leaves_nothing_that_looks_complete(repository: tuple[Path, str], tmp_path: Path):
    folder, first = repository
    with pytest.raises(RivalError, match=r"^x is left out: .*/absent can't be fetched \(.+\)\.$"):
        prepare("x", Environment(repository=Repository("u", first)), tmp_path / "cache", str(tmp_path / "absent"), print)
    with pytest.raises(RivalError, match="has no commit 0000"):
        prepare("x", Environment(repository=Repository("u", "0" * 40)), tmp_path / "cache", str(folder), print)
    prepared = prepare("x", Environment(repository=Repository("u", first)), tmp_path / "cache", str(folder), print)
    assert "cache" in prepared.variables["PYTHONPATH"]


def test_all_that_is_installed_or_fetched_is_pinned():
    packages = [package for rival in RIVALS for package in rival.environment.packages]
    assert len(packages) > 5
    assert all("==" in package for package in packages)
    repositories = [STATIC, *(rival.environment.repository for rival in RIVALS if rival.environment.repository)]
    assert all(len(each.commit) == 40 for each in repositories)
