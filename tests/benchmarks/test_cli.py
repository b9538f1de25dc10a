"""`atspeed-bench` as a whole: every command explains itself, imports nothing heavy first, and misses an extra with a sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from benchmarks import endings
from benchmarks.cli import app
from benchmarks.options import ITEMS_ALONE
from drafting.beam.rule import MAX_BEAM_WIDTH
from drafting.errors import SetupError
from verification.lengths import width_refusal

ROOT = Path(__file__).parents[2]
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
PASSED_ON = {"gpu", "kernel", "truth"}
HEAVY = ("torch", "transformers", "vllm", "httpx", "hdrh", "matplotlib", "prometheus_client", "numpy")


def test_every_command_has_an_example():
    for name, command in COMMANDS.items():
        if name not in PASSED_ON | {"replay", "bench"}:
            assert f"Example: atspeed-bench {name}" in command.help, name


@pytest.mark.parametrize("name", sorted(PASSED_ON))
def test_what_runs_on_a_bare_machine_reads_its_own_flags(name: str):
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert "usage: " in result.stdout


def test_nothing_heavy_is_imported_before_a_command_runs():
    code = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r})); import benchmarks.cli as cli; sys.argv[1:] = ['--help']; cli.main()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=os.environ, stdout=subprocess.DEVNULL)


def test_a_missing_extra_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(endings, "find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["load"])
    assert result.exit_code == 1
    assert "This needs httpx and hdrh: pip install 'atspeed-server[bench]'." in result.stderr


@pytest.mark.parametrize(
    ("sentence", "note"),
    [
        (width_refusal(300, MAX_BEAM_WIDTH), " (`atspeed-bench` has no such option: measure less at a time, or a smaller model.)"),
        ("The catalog has no items.", ""),
    ],
    ids=["an option of servers", "none"],
)
def test_an_option_of_servers_is_said_to_be_none_of_benchmarks(sentence: str, note: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(typer.Exit), endings.sentences():
        raise SetupError(sentence)
    assert capsys.readouterr().err == f"{sentence}{note}\n"


@pytest.mark.parametrize("name", ["lossless", "precision", "rivals", "paper", "quality"])
def test_a_run_that_would_look_at_nothing_fails(name: str, tmp_path: Path):
    """Of some, the exit status is the verdict."""
    files = {"--target": tmp_path, "--draft": tmp_path, "--data": tmp_path, "--catalog": ROOT / "pyproject.toml"}
    given = [str(part) for pair in files.items() for part in pair] if name in ("lossless", "precision") else []
    flag = {"lossless": "--rules", "precision": "--dtypes"}.get(name, "--only")
    result = CliRunner().invoke(app, [name, *given, flag, " ,"])
    assert result.exit_code == 1
    assert f"{flag} takes names, separated by commas" in result.stderr


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--rules", "strict,relaxed"), "There is no rule 'relaxed' by which no list may differ: choose strict or gumbel."),
        (("--plans", "trie,guess"), "There is no plan 'guess'"),
        (("--plans", "auto@many"), "There is no plan 'auto@many'"),
    ],
)
def test_lossless_refuses_what_it_can_not_search_by_before_it_searches(flags: tuple[str, str], sentence: str, tmp_path: Path):
    files = {"--target": tmp_path, "--draft": tmp_path, "--data": tmp_path, "--catalog": ROOT / "pyproject.toml"}
    result = CliRunner().invoke(app, ["lossless", *(str(part) for pair in files.items() for part in pair), *flags])
    assert result.exit_code == 1
    assert sentence in result.stderr


@pytest.mark.parametrize(
    ("command", "needs", "sentence"),
    [
        *((f"{name} --k 10,2001", "target draft catalog data", "--k takes whole") for name in ("lossless", "precision", "replay check")),
        ("replay record --out recording.npz --k 10,2001", "target draft catalog data", "--k takes whole"),
        *((f"{name} --k 10,2001", "", "--k takes whole") for name in ("steps", "rivals")),
        *((f"{name} --k 2001", "target catalog data", "equal to 2000") for name in ("exactness", "widths")),
        ("widths --widths 10,5001", "target catalog data", "--widths takes whole numbers from 1 to 5000"),
        ("forwards --widths 10,2001", "", "--widths takes whole numbers from 1 to 2000"),
    ],
)
def test_longer_lists_than_any_engine_makes_are_refused_before_anything_is_measured(
    command: str, needs: str, sentence: str, tmp_path: Path
):
    """They ended in a traceback once they were asked for."""
    files = [part for name in needs.split() for part in (f"--{name}", str(ROOT / "pyproject.toml" if name == "catalog" else tmp_path))]
    result = CliRunner().invoke(app, [*command.split(), *files], env={"COLUMNS": "400"})
    assert result.exit_code in (1, 2)
    assert sentence in result.stderr


@pytest.mark.parametrize("name", ["lossless", "precision", "exactness", "bench", "replay record", "replay check"])
def test_what_is_asked_of_test_users_is_said(name: str):
    command = COMMANDS[name.split()[0]]
    command = command.commands[name.split()[1]] if " " in name else command
    (data,) = (option for option in command.params if option.name == "data")
    assert ITEMS_ALONE in data.help


@pytest.mark.parametrize(
    "command",
    [
        *(f"load {flag}" for flag in ("--json", "--plot")),
        *(f"bench {flag}" for flag in ("--json", "--markdown", "--plot", "--record-trace")),
        *(f"rivals {flag}" for flag in ("--json", "--markdown")),
        *(f"replay run {__file__} {flag}" for flag in ("--json", "--plot")),
        "models --page",
    ],
)
def test_a_file_in_a_directory_that_is_not_there_is_refused_before_anything_is_measured(command: str, tmp_path: Path):
    """What had taken a quarter of an hour ended in a traceback, or in a sentence and no figure."""
    result = CliRunner().invoke(app, [*command.split(), str(tmp_path / "none" / "file")], env={"COLUMNS": "400"})
    assert result.exit_code == 2
    assert f"there is no directory {tmp_path / 'none'} to write to." in result.stderr
