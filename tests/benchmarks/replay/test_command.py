"""`atspeed-bench replay` from the command line, on real models and data of the paper's form."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.replay.check import check_plans
from benchmarks.systems.histories import held_out_histories
from drafting.catalog.builder import catalog_of
from drafting.catalog.loading import load_catalog
from tests.models import save_random_model
from verification.recommender import Recommender

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replay")
    codes = np.random.default_rng(0).integers(5, size=(60, 3))
    catalog = catalog_of({str(i): [f"<{'abc'[level]}_{code}>" for level, code in enumerate(row)] for i, row in enumerate(codes)})
    catalog.save(path / "catalog.jsonl")
    save_random_model(path / "target", catalog, layers=1, hidden=32)
    save_random_model(path / "draft", catalog, layers=1, hidden=32, seed=1)
    (path / "data").mkdir()
    rng = np.random.default_rng(0)
    for name in ("train", "valid", "test"):
        lines = [f"{user} {' '.join(map(str, rng.integers(1, 61, 4)))}" for user in range(1, 9)]
        (path / "data" / f"sequential_{name}.txt").write_text("\n".join(lines) + "\n")
    return path


def models(folder: Path) -> list[str]:
    named = {"--target": "target", "--draft": "draft", "--catalog": "catalog.jsonl", "--data": "data"}
    return [part for option, name in named.items() for part in (option, str(folder / name))]


def test_records_replays_and_checks(folder: Path) -> None:
    recording, rows_file, plot = folder / "new folder" / "users.npz", folder / "rows.json", folder / "plot.png"
    recorded = RUNNER.invoke(app, ["replay", "record", *models(folder), "--users", "8", "--k", "2,5", "--out", str(recording)])
    assert recorded.exit_code == 0, recorded.output
    assert "8 users" in recorded.output
    plans = ["--plans", "none,trie,beam:9,auto"]
    replayed = RUNNER.invoke(
        app, ["replay", "run", str(recording), *plans, "--balance", "50,300", "--json", str(rows_file), "--plot", str(plot)]
    )
    assert replayed.exit_code == 0, replayed.output
    rows = json.loads(rows_file.read_text())
    assert {(row["balance"], row["k"], row["plan"]) for row in rows} == {
        (balance, k, plan) for balance in (50.0, 300.0) for k in (2, 5) for plan in ("none", "trie", "beam:9", "auto")
    }
    assert all(row["speedup"] == 1 for row in rows if row["plan"] == "none")
    flat = RUNNER.invoke(
        app, ["replay", "run", str(recording), "--plans", "beam:9", "--balance", "50", "--free", "9999", "--json", str(rows_file)]
    )
    assert flat.exit_code == 0, flat.output
    for row in json.loads(rows_file.read_text()):
        # Where tokens are free, only forwards count; one of the draft costs a hundredth and has its own tokens.
        assert row["seconds"] == pytest.approx(50 * row["target_forwards"] + 0.5 * row["draft_forwards"] + 0.01 * row["draft_tokens"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    checked = RUNNER.invoke(app, ["replay", "check", *models(folder), "--users", "8", "--k", "2", "--threads", "1", *plans])
    assert checked.exit_code == 0, checked.output
    assert "predicted" in checked.output


def test_predictions_are_of_users_who_are_asked_for_the_first_time(folder: Path) -> None:
    """Those who are timed have no last list, but predictions had them draft from one."""
    catalog = load_catalog(folder / "catalog.jsonl")
    histories = held_out_histories(folder / "data", catalog, folder / "target", 8)
    with closing(Recommender.load(folder / "target", catalog, draft=folder / "draft", kv_memory_gib=0.02)) as recommender:
        without, with_last = check_plans(recommender, histories, [2], ["trie", "trie+last"])
    assert with_last.predicted == without.predicted > 0


@pytest.fixture(scope="module")
def two_users(folder: Path) -> Path:
    recording = folder / "two.npz"
    RUNNER.invoke(app, ["replay", "record", *models(folder), "--users", "2", "--k", "2", "--out", str(recording)])
    return recording


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--k", "3"], "has no lists of 3"),
        (["--plans", "beam:x"], "There is no plan 'beam:x'"),
        (["--balance", "fast"], "whole numbers from 1 on"),
    ],
)
def test_mistakes_are_answered_with_sentences(two_users: Path, arguments: list[str], sentence: str) -> None:
    result = RUNNER.invoke(app, ["replay", "run", str(two_users), *arguments])
    assert result.exit_code != 0
    assert sentence in " ".join(result.output.replace("│", " ").split())


def test_a_check_takes_a_thread_at_least(folder: Path) -> None:
    checked = RUNNER.invoke(app, ["replay", "check", *models(folder), "--threads", "-1"])
    assert checked.exit_code == 2
    assert "equal to 1" in checked.stderr
