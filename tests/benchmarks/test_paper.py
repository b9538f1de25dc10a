"""The pipeline of `make paper`: what it runs, in which order, and what becomes of a stage that fails."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import paper
from benchmarks.cli import app
from benchmarks.paper import stages, write_report
from benchmarks.pipeline import Pipeline, Stage, StageFailedError
from verification.evaluation.report import PLAIN, ModeRow, Quality, Report, Spread


def listing(tmp_path: Path, name: str, *arguments: str, result: str = "made") -> Stage:
    """A stage that is a quick command of `atspeed`."""
    return Stage(name, arguments or ("--help",), tmp_path / result)


def test_a_stage_whose_result_is_there_is_not_run_again(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "work")
    pipeline.run("help", [listing(tmp_path, "first")])
    assert "Usage" in (tmp_path / "work" / "logs" / "first.log").read_text()
    assert pipeline.seconds["help"] > 0
    (tmp_path / "made").touch()
    pipeline.run("again", [listing(tmp_path, "second")])
    assert not (tmp_path / "work" / "logs" / "second.log").exists()
    assert Pipeline(tmp_path / "work").seconds == pipeline.seconds


def test_a_stage_that_fails_says_why(tmp_path: Path) -> None:
    stage = listing(tmp_path, "wrong", "catalog", "inspect", str(tmp_path / "none.json"))
    with pytest.raises(StageFailedError, match=r"wrong failed; .*wrong\.log"):
        Pipeline(tmp_path / "work").run("wrong", [stage])


def test_data_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["paper", "--data", "none", "--catalog", str(tmp_path / "none.json")], env={"COLUMNS": "200"})
    assert result.exit_code != 0
    assert "'none' does not exist" in result.stderr


def test_every_stage_finds_what_earlier_ones_have_made(tmp_path: Path) -> None:
    steps = stages(tmp_path / "work", tmp_path / "data", tmp_path / "items.json", paper.OBJECTIVES, seeds=3)
    assert len(steps["drafts"]) == 3 * len(paper.OBJECTIVES)
    made: set[str] = set()
    for step in steps.values():
        for stage in step:
            needed = {part for part in stage.arguments if part.startswith(str(tmp_path / "work"))}
            outputs = {str(stage.result), str(stage.result.parent)}
            assert needed - outputs <= made
        made |= {str(stage.result) for stage in step}
    names = [stage.name for step in steps.values() for stage in step]
    assert len(names) == len(set(names))


def accepted(objective: str, steps: float) -> Report:
    """An evaluation of one draft of an objective."""
    quality, none = Quality(0.1, 0.05, 0.1), Spread(0.0, 0.0, 0.0)
    setting = {
        "target": {"name": "target", "hash": "t"},
        "catalog": {"version": "v", "items": 5},
        "drafts": {f"{objective}-0": {"objective": objective, "seed": 0}},
        "settings": {"part": "test", "plan": "beam:40", "generated": 0},
        "timed_users": 0,
        "threads": 1,
        "machine": "x",
        "date": "2026-11-24",
    }
    rows = [
        ModeRow("", PLAIN, 10, quality, none, none, 0.0, 7),
        ModeRow(f"{objective}-0", "strict", 10, quality, Spread(steps, steps, steps), none, 40.0, 7),
    ]
    return Report(setting, users=7, warm_users=6, rows=rows, baselines=[], generate_ms={}, generate_equal={})


def test_the_report_names_its_figures_and_keeps_its_plots(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "work")
    pipeline.seconds = {"target": 600.0, "drafts": 1200.0}
    for objective in ("atspeed-s", "sft"):
        (folder := pipeline.work / f"acceptance-{objective}").mkdir()
        (folder / "report.json").write_bytes(accepted(objective, 2.5 if objective == "sft" else 2.0).encode())
    (speed := pipeline.work / "speed").mkdir()
    (speed / "report.md").write_text("tables of speed\n")
    (pipeline.work / "quality").mkdir()
    (pipeline.work / "quality" / "report.md").write_text("the target beside others\n")
    for plot in ("accepted_steps.png", "recall_speed.png"):
        (speed / plot).write_bytes(b"png")
    (pipeline.work / "recordings").mkdir()
    rows = [{"balance": 300.0, "k": k, "plan": "auto", "speedup": 1.5 + k, "target_forwards": 2.0} for k in (10, 5)]
    (pipeline.work / "recordings" / "sft.json").write_text(json.dumps(rows))
    text = write_report(tmp_path / "results", "shop", pipeline, "make paper").read_text()
    assert "# The paper's tables on shop" in text
    assert "in 30 minutes (by step: target 10.0, drafts 20.0)" in text
    assert "## The target beside the baselines\n\nthe target beside others\n\n## Accepted steps" in text
    assert "| 300 | sft | auto | 6.50 (2.00) | 11.50 (2.00) |" in text
    for plot in ("objectives", "steps", "speed"):
        assert f"(shop-{plot}.png)" in text
        assert b"png" in (tmp_path / "results" / f"shop-{plot}.png").read_bytes().lower()
    lines = [line for line in text.splitlines() if line.startswith("| 10 |")]
    assert [line.split(" | ")[2:4] for line in lines[:3]] == [["", "plain"], ["sft-0", "strict"], ["atspeed-s-0", "strict"]]
    assert [line.split(" | ")[1:6] for line in lines[3:5]] == [
        ["sft", "strict", "1", "2.500", "0.000"],
        ["atspeed-s", "strict", "1", "2.000", "0.000"],
    ]
