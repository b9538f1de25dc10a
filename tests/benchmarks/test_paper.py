"""The pipeline of `make paper`: what it runs, in which order, and what becomes of a stage that fails."""

import json
from pathlib import Path

import pytest

from benchmarks import paper
from benchmarks.paper import Pipeline, Stage, StageFailedError, stages, write_report


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


def test_data_that_is_not_there_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert paper.main(["--data", str(tmp_path / "none"), "--catalog", str(tmp_path / "none.json")]) == 1
    assert "There are no interactions" in capsys.readouterr().err


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


def test_the_report_names_its_figures_and_keeps_its_plots(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "work")
    pipeline.seconds = {"target": 600.0, "drafts": 1200.0}
    for name in ("acceptance", "speed"):
        (pipeline.work / name).mkdir()
        (pipeline.work / name / "report.md").write_text(f"tables of {name}\n")
        for plot in ("accepted_steps.png", "recall_speed.png"):
            (pipeline.work / name / plot).write_bytes(b"png")
    (pipeline.work / "recordings").mkdir()
    rows = [{"balance": 300.0, "k": k, "plan": "auto", "speedup": 1.5 + k, "target_forwards": 2.0} for k in (10, 5)]
    (pipeline.work / "recordings" / "sft.json").write_text(json.dumps(rows))
    text = write_report(tmp_path / "results", "shop", pipeline, "make paper").read_text()
    assert "# The paper's tables on shop" in text
    assert "in 30 minutes (by step: target 10.0, drafts 20.0)" in text
    assert "| 300 | sft | auto | 6.50 (2.00) | 11.50 (2.00) |" in text
    for plot in ("objectives", "steps", "speed"):
        assert f"(shop-{plot}.png)" in text
        assert (tmp_path / "results" / f"shop-{plot}.png").read_bytes() == b"png"
