"""The driver of `make quality`: its stages in order, its table from what is there, and what it says when something is missing."""

from pathlib import Path

import pytest

from benchmarks import quality
from benchmarks.endings import BenchmarkError
from benchmarks.paper import Pipeline, Stage
from benchmarks.quality import BASELINES, DataSet, data_set, run, stages, write_table
from verification.evaluation.report import PLAIN, BaselineRow, ModeRow, Quality, Report, Spread

NONE = Spread(0.0, 0.0, 0.0)


def evaluated(recall: float, baselines: dict[str, float]) -> Report:
    rows = [ModeRow("", PLAIN, 10, Quality(recall, recall / 2, 0.0, 0.01, 0.005), NONE, NONE, 0.0, 7)]
    others = [
        BaselineRow(name, 10, Quality(value, value / 4, 0.0, 0.02, 0.01), "l2 5" * (name == "EASE")) for name, value in baselines.items()
    ]
    return Report({}, users=1234, warm_users=6, rows=rows, baselines=others, generate_ms={}, generate_equal={})


def written(folder: Path, seed: int, report: Report) -> None:
    (folder / f"report-{seed}").mkdir(parents=True)
    (folder / f"report-{seed}" / "report.json").write_bytes(report.encode())


def test_every_stage_finds_what_earlier_ones_have_made(tmp_path: Path) -> None:
    (tmp_path / "shared" / "beauty").mkdir(parents=True)
    for name in ("beauty", "movielens"):
        source = data_set(name, tmp_path / "shared", tmp_path / "work")
        made = {str(tmp_path / "work" / "movielens" / "raw")}
        names = []
        for stage in stages(source, tmp_path / "work", seeds=3):
            needed = {part for part in stage.arguments if part.startswith(str(tmp_path / "work"))}
            assert needed - {str(stage.result), str(stage.result.parent)} <= made
            made |= {str(stage.result)}
            names.append(stage.name)
        assert len(names) == len(set(names)) == 7 + (name == "movielens")
    asked = [stage.arguments for stage in stages(source, tmp_path / "work", seeds=3) if "--baselines" in stage.arguments]
    assert [each[each.index("--baselines") + 1] for each in asked] == [BASELINES, "none", "none"]


def test_the_table_has_the_target_over_its_seeds_beside_the_best_baseline(tmp_path: Path) -> None:
    written(tmp_path / "beauty", 0, evaluated(0.03, {"item-kNN": 0.02, "EASE": 0.025}))
    written(tmp_path / "beauty", 1, evaluated(0.02, {}))
    text = write_table(tmp_path, ["beauty", "games"], tmp_path / "results").read_text()
    assert "## beauty, 1,234 users" in text
    assert "games" not in text
    assert "| target, 2 seeds | 0.0250 ± 0.0100 | ± 0.0071 | 0.0125 ± 0.0050 | ± 0.0035 | 1.00, 2.00 |" in text
    assert "| EASE (l2 5) | 0.0250 ± 0.0200 |  | 0.0063 ± 0.0100 |  | 1.00, 1.00 |" in text
    assert "| item-kNN | 0.0200 ± 0.0200 |  | 0.0050 ± 0.0100 |  | 0.80, 0.80 |" in text


def test_what_is_done_is_kept_and_nothing_begins_after_the_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = DataSet("beauty", tmp_path / "data")
    monkeypatch.setattr(quality, "data_set", lambda *_: source)
    ran = []

    def pretend(self: Pipeline, title: str, some: list[Stage], side_by_side: int = 1) -> None:
        ran.append(title)
        some[0].result.parent.mkdir(parents=True, exist_ok=True)
        some[0].result.write_bytes(evaluated(0.03, {"EASE": 0.02}).encode())

    monkeypatch.setattr(Pipeline, "run", pretend)
    with pytest.raises(BenchmarkError, match="No evaluation is done yet"):
        run(["beauty"], tmp_path / "work", tmp_path, tmp_path / "results", 1, 0.0)
    assert ran == []
    run(["beauty"], tmp_path / "work", tmp_path, tmp_path / "results", 1, None)
    assert ran == ["beauty-catalog", "beauty-target-0", "beauty-report-0"]
    run(["beauty"], tmp_path / "work", tmp_path, tmp_path / "results", 2, None)
    assert ran[3:] == ["beauty-target-1", "beauty-report-1"]


def test_data_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="There is no data set 'shop': choose beauty, games, movielens"):
        data_set("shop", tmp_path, tmp_path)
    with pytest.raises(BenchmarkError, match="pass the directory that holds games with --shared"):
        data_set("games", tmp_path, tmp_path)
