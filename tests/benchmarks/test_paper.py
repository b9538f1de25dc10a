"""The pipeline of `make paper`: what it runs, in which order, and what becomes of a stage that fails."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Lock
from types import SimpleNamespace

import msgspec
import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.paper import Drafted, given, own, run, write_report
from benchmarks.pipeline import STAGES_FILE, Pipeline, Stage, StageFailedError
from benchmarks.quality import Stages
from benchmarks.quality_table import Compared
from drafting.alignment.needs import OBJECTIVES
from tests.benchmarks.test_quality import evaluated, flag, pretend
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
    with pytest.raises(StageFailedError, match=r"wrong failed \(status 2\); .*wrong\.log ends with: .*there is no file .*none\.json"):
        Pipeline(tmp_path / "work").run("wrong", [stage])


def test_times_of_stages_side_by_side_are_written_by_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    both, writing = Barrier(2, timeout=10), Lock()

    def dumps(times: dict[str, float], indent: int) -> str:
        assert writing.acquire(blocking=False)
        time.sleep(0.1)
        writing.release()
        return json.dumps(times, indent=indent)

    pipeline = Pipeline(tmp_path)
    monkeypatch.setattr("benchmarks.pipeline.json", SimpleNamespace(dumps=dumps))
    monkeypatch.setattr(pipeline, "_run", lambda stage, threads: both.wait())
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: pipeline.run(name, [Stage(name, (), tmp_path / name)]), "ab"))
    assert json.loads((tmp_path / STAGES_FILE).read_text()).keys() == {"a", "b"}


def test_data_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    def said(*flags: str) -> str:
        result = CliRunner().invoke(app, ["paper", *flags], env={"COLUMNS": "200"})
        assert result.exit_code != 0
        return result.stderr

    assert "'none' does not exist" in said("--data", "none", "--catalog", str(tmp_path / "none.json"))
    assert "pass the directory that holds games with --shared" in said("--only", "games", "--shared", str(tmp_path))
    assert "Give --data and --catalog together" in said("--data", str(tmp_path))
    assert "There is no objective 'atspeed_s': choose sft, wordkd" in said("--objectives", "sft,atspeed_s")


def drafted(tmp_path: Path, objectives: tuple[str, ...] = OBJECTIVES, seeds: int = 3) -> Drafted:
    """The stages behind a target that is not there."""
    source = Stages(given(tmp_path / "shop", tmp_path / "items.json"), tmp_path / "work")
    target = Stage("target", (), tmp_path / "work" / "shop" / "target")
    return Drafted(source, target, objectives, seeds)


def test_every_stage_finds_what_earlier_ones_have_made(tmp_path: Path) -> None:
    found = drafted(tmp_path)
    steps = found.steps()
    assert len(steps["drafts"]) == 3 * len(OBJECTIVES)
    made = {str(found.target.result)}
    for step in steps.values():
        for stage in step:
            needed = {part for part in stage.arguments if part.startswith(str(tmp_path / "work"))}
            outputs = {str(stage.result), str(stage.result.parent)}
            assert needed - outputs <= made
        made |= {str(stage.result) for stage in step}
    names = [stage.name for step in steps.values() for stage in step]
    assert len(names) == len(set(names))
    # Tables call a draft by its directory.
    assert [Path(stage.result).name for stage in steps["drafts"][:2]] == ["sft-0", "sft-1"]


def test_the_papers_target_learns_the_identifiers_that_it_comes_with(tmp_path: Path) -> None:
    source = Stages(given(tmp_path / "shop", tmp_path / "items.json"), tmp_path / "work")
    assert source.source.name == "shop"
    assert not any("build" in stage.arguments and "catalog" in stage.arguments for stage in source.shared())
    trial = next(source.trial())
    assert trial.arguments[trial.arguments.index("--catalog") + 1] == str(tmp_path / "items.json")
    assert "children" not in trial.arguments, "teacher data need scores over the vocabulary"


def test_other_data_in_the_same_place_are_learnt_anew(tmp_path: Path) -> None:
    """Those of a user change from day to day; the paper's do not."""
    data, catalog = tmp_path / "shop", tmp_path / "items.json"
    data.mkdir()

    def results(events: str, items: str) -> set[Path]:
        (data / "interactions.jsonl").write_text(events)
        catalog.write_text(items)
        source = Stages(own(data, catalog), tmp_path / "work")
        steps = Drafted(source, Stage("target", (), tmp_path / "work" / "target"), ("sft",), 1).steps().values()
        return {stage.result for some in (source.shared(), [source.closed_forms], *steps) for stage in some}

    one, other, third = results("a", "b"), results("c", "b"), results("a", "d")
    assert len(one) == len(other) == len(third) > 5
    assert not one & other
    assert not one & third
    assert results("a", "b") == one


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
    found = drafted(tmp_path, objectives=("sft", "atspeed-s"), seeds=1)
    for objective in found.objectives:
        (report := found.acceptance(objective).result).parent.mkdir(parents=True)
        report.write_bytes(accepted(objective, 2.5 if objective == "sft" else 2.0).encode())
    (speed := found.speed.result.parent).mkdir()
    (speed / "report.md").write_text("tables of speed\n")
    for plot in ("accepted_steps.png", "recall_speed.png"):
        (speed / plot).write_bytes(b"png")
    rows = [{"balance": 300.0, "k": k, "plan": "auto", "speedup": 1.5 + k, "target_forwards": 2.0} for k in (10, 5)]
    for objective in found.timed:
        found.replay(objective).result.write_text(json.dumps(rows))
    target = evaluated(0.03, {})
    compared = Compared([target], [evaluated(0.5, {"EASE": 0.02})])
    seconds = {"target": 600.0, "drafts": 1200.0}
    text = write_report(tmp_path / "results", found, compared, seconds, "make paper").read_text()
    assert "# The paper's tables on shop" in text
    assert "in 30 minutes (by step: target 10.0, drafts 20.0)" in text
    assert "--precision bfloat16`, soft labels of the neighbour model (`--neighbours`) and the [recipe of its base]" in text
    assert "| target, 1 seed | 0.0300 ± 0.0100 |  | 0.0150 ± 0.0050 |  | 1.50, 3.00 |\n" in text
    assert "| EASE (l2 5) | 0.0200 ± 0.0200 |" in text
    assert "SASRec and GRU4Rec are not among these baselines" in text
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


def test_objectives_of_which_none_is_timed_have_a_report_without_times(tmp_path: Path) -> None:
    found = drafted(tmp_path, objectives=("wordkd",), seeds=1)
    assert list(found.steps()) == ["teacher", "drafts", "acceptance"]
    (report := found.acceptance("wordkd").result).parent.mkdir(parents=True)
    report.write_bytes(accepted("wordkd", 2.0).encode())
    compared = Compared([evaluated(0.03, {})], [evaluated(0.5, {"EASE": 0.02})])
    text = write_report(tmp_path / "results", found, compared, {"drafts": 60.0}, "make paper").read_text()
    assert "| 10 | wordkd | strict | 1 | 2.000 |" in text
    assert "(shop-objectives.png)" in text
    assert "clock of this machine" not in text


def test_the_report_tells_the_options_that_it_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("benchmarks.paper.run", lambda *given: told.append(given[-1]) or [])
    (tmp_path / "interactions.jsonl").touch()
    (tmp_path / "items.json").touch()
    flags = ["--data", str(tmp_path), "--catalog", str(tmp_path / "items.json"), "--objectives", "sft, wordkd", "--seeds", "2"]
    assert CliRunner().invoke(app, ["paper", *flags], catch_exceptions=False).exit_code == 0
    assert told == [f"atspeed-bench paper --data {tmp_path} --catalog {tmp_path / 'items.json'} --objectives sft,wordkd --seeds 2"]


def test_the_report_tells_no_times_of_steps_that_another_run_has_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same folder, with objectives that are timed."""
    told: list[dict[str, float]] = []
    monkeypatch.setattr(Pipeline, "_run", lambda pipeline, stage, threads: pretend(stage))
    monkeypatch.setattr("benchmarks.paper.write_report", lambda *asked: told.append(asked[3]) or tmp_path)
    for objective in ("sft", "wordkd"):
        run([given(tmp_path / "shop", tmp_path / "items.json")], tmp_path / "work", tmp_path / "results", 1, [objective], "make paper")
    assert {"shop-trial", "teacher", "recordings", "replays", "speed"} <= told[0].keys()
    assert told[1].keys() == told[0].keys() - {"recordings", "replays", "speed"}


@pytest.mark.parametrize(("users", "recorded"), [(7, "7"), (1234, "500")])
def test_no_more_users_are_recorded_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: int, recorded: str) -> None:
    """Of data with few, the run would end behind all of its training."""
    made: list[Stage] = []

    def make(pipeline: Pipeline, stage: Stage, threads: int) -> None:
        pretend(stage)
        made.append(stage)

    monkeypatch.setattr(Pipeline, "_run", make)
    monkeypatch.setattr("benchmarks.paper.read", lambda report: msgspec.structs.replace(evaluated(0.03, {}), users=users))
    monkeypatch.setattr("benchmarks.paper.write_report", lambda *asked: tmp_path)
    run([given(tmp_path / "shop", tmp_path / "items.json")], tmp_path / "work", tmp_path / "results", 1, ["sft"], "make paper")
    (recording,) = (stage for stage in made if "record" in stage.arguments)
    assert flag(recording, "--users") == recorded
