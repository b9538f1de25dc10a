"""`atspeed prepare`: what it says, and that mistakes end it with a sentence."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.commands.app import app


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["prepare", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    path = tmp_path / "clicks.csv"
    path.write_text("who,what,when\n" + "".join(f"u{user},i{item},{1_700_000_000_000 + item}\n" for user in range(3) for item in range(4)))
    return path


def test_it_tells_what_it_found_and_what_comes_next(tmp_path: Path, clicks: Path) -> None:
    status, output = run(clicks, "--user", "who", "--item", "what", "--time", "when", "--core", 2, "--out", tmp_path / "data")
    assert status == 0, output
    assert "clicks.csv: user = who, item = what, time = when.\n" in output
    assert "The times (when) are milliseconds, as the middle one, 1700000000002, is then in November 2023" in output
    assert "interactions        12\n" in output
    assert "test labels         3, 100.0% of items that are not in the training part\n" in output
    assert f"Wrote {tmp_path / 'data'}. Next" in output
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["interactions.parquet", "items.jsonl", "prepare.json"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "says the user? Name it with --user: who, what, when."),
        (("--user", "who", "--item", "what", "--time-unit", "weeks", "--time", "when"), "There is no unit of time 'weeks'"),
        (("--repeats", "none"), "--repeats takes all, first, last, got 'none'."),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(tmp_path: Path, clicks: Path, flags: tuple[str, ...], sentence: str) -> None:
    status, output = run(clicks, "--out", tmp_path / "data", *flags)
    assert status == 1
    assert sentence in output
    assert [path.name for path in tmp_path.iterdir()] == ["clicks.csv"]
