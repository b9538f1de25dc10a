"""`make truth` from interactions to the table, with the tiniest models; and the libraries that it needs."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.gpu import truth
from drafting.catalog.builder import catalog_of
from drafting.errors import InteractionError
from tests.benchmarks.gpu import few_libraries

ROOT = Path(__file__).parents[3]
ITEMS = 20
QUICK = ("--size", "tiny", "--epochs", "2", "--draft-epochs", "1", "--batch-size", "8")
FEW = ("--k", "1,4", "--users", "12", "--timed", "3", "--generated", "2")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Users who go round the items one after the other."""
    folder = tmp_path_factory.mktemp("truth")
    catalog = catalog_of({str(item): [f"<a_{item // 5}>", f"<b_{item % 5}>", "<c_0>"] for item in range(ITEMS)})
    catalog.save(folder / "catalog.jsonl")
    for name, line in (("train", range(5)), ("valid", range(5, 6)), ("test", range(6, 7))):
        lines = [" ".join(str(n) for n in [user + 1, *((user + step) % ITEMS + 1 for step in line)]) for user in range(40)]
        (folder / f"sequential_{name}.txt").write_text("\n".join(lines) + "\n")
    return ["--data", str(folder), "--catalog", str(folder / "catalog.jsonl"), "--work", str(folder / "work")]


def test_a_pair_is_trained_once_and_measured(inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert truth.main([*inputs, *QUICK, *FEW, "--markdown", str(tmp_path / "truth.md")]) == 0
    assert "draft: TrainingMetrics" in capsys.readouterr().out
    table = [line.split(" | ") for line in (tmp_path / "truth.md").read_text().splitlines() if line.startswith("| ")]
    assert [row[0] for row in table] == ["| K", "| 1", "| 4"]
    for row in table[1:]:
        assert row[4].startswith("0 of 12 (")
        # Every level is decided by a forward of its own or accepted; there are three.
        assert float(row[2]) + float(row[3]) == pytest.approx(3, abs=0.011)
    assert truth.main([*inputs, *QUICK, *FEW]) == 0
    assert "TrainingMetrics" not in capsys.readouterr().out
    # The report would say that these models were trained as is asked now.
    assert truth.main([*inputs, *QUICK, *FEW, "--epochs", "3", "--dtype", "bfloat16"]) == 1
    assert "target-tiny was made otherwise (epochs, precision) than is asked now" in capsys.readouterr().err
    assert truth.main([*inputs, *QUICK, *FEW, "--draft-epochs", "3"]) == 1
    assert "draft-tiny was made otherwise (epochs) than is asked now" in capsys.readouterr().err
    # A target that was trained anew is another one.
    config = Path(inputs[-1]) / "target-tiny" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert truth.main([*inputs, *QUICK, *FEW]) == 1
    assert "was made with another target" in capsys.readouterr().err


def test_a_run_that_is_cut_off_leaves_the_rows_that_it_has(inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counts = {"k": 1, "users": 12, "different": 0, "ties": 0, "generated": 2, "generate_different": 0}
    times = {"planner_ms": 1.0, "plain_ms": 2.0, "generate_ms": 3.0, "over_generate": 3.0}
    row = truth.TruthRow(**counts, **times, recall=0.5, accepted_steps=1.0, target_forwards=2.0)

    def cut_off(*_: object) -> Iterator[truth.TruthRow]:
        yield row
        raise KeyboardInterrupt

    monkeypatch.setattr(truth, "train", lambda options: (tmp_path, tmp_path))
    monkeypatch.setattr(truth, "measure", cut_off)
    report = tmp_path / "not" / "there" / "truth.md"
    with pytest.raises(KeyboardInterrupt):
        truth.main([*inputs, "--markdown", str(report)])
    assert "\n| 1 | 0.5000 | " in report.read_text()


def test_what_cannot_be_used_gets_one_sentence(inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert truth.main(["--data", str(tmp_path), *inputs[2:4], "--work", str(tmp_path / "work"), *QUICK]) == 1
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--k", "10,3000"), "whole numbers from 1 to 2000 are wanted, got '10,3000'"),
        (("--k", "0"), "whole numbers from 1 to 2000 are wanted, got '0'"),
        (("--users", "0"), "a whole number from 1 on is wanted, got '0'"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_trained(
    inputs: list[str], flags: tuple[str, str], sentence: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        truth.main([*inputs, *flags])
    assert sentence in capsys.readouterr().err


def test_missing_libraries_are_named(inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(truth, "NEEDED", ("msgspec", "no_such_library"))
    assert truth.main(inputs) == 1
    assert capsys.readouterr().err == ("Training needs no_such_library beside torch and transformers: pip install no_such_library.\n")


def test_it_needs_few_libraries():
    needed = "verification.teacher, drafting.alignment.draft, verification.evaluation.searching, benchmarks.gpu.truth"
    code = f"{few_libraries.only(*truth.NEEDED)}; import {needed}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=os.environ)


def test_test_users_are_those_of_the_split_that_the_target_was_trained_with(tmp_path: Path):
    """One user's events are all of the newest, so no user has some before them; another split would ask what the target has learnt."""
    catalog_of({f"item-{item}": [f"<a_{item}>"] for item in range(40)}).save(tmp_path / "catalog.jsonl")
    lines = [{"user": time // 4, "item": f"item-{time}", "timestamp": time} for time in range(40)]
    (tmp_path / "interactions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "training.json").write_text(json.dumps({"settings": {"split": "global-time"}}))
    options = argparse.Namespace(data=tmp_path, catalog=tmp_path / "catalog.jsonl", users=10)
    with pytest.raises(InteractionError, match="There are no users to evaluate"):
        next(truth.measure(tmp_path / "target", tmp_path / "draft", options))
