"""The driver of `make quality`: its stages in order, its table from what is there, and what it says when something is missing."""

import json
from pathlib import Path

import pytest

from benchmarks import quality
from benchmarks.endings import BenchmarkError
from benchmarks.paper import Pipeline, Stage
from benchmarks.quality import WEIGHTS, DataSet, baseline_stages, data_set, run, seed_stages, shared_stages
from benchmarks.quality_table import write_table
from verification.evaluation.report import PLAIN, BaselineRow, ModeRow, Quality, Report, Spread
from verification.evaluation.settings import BASELINES as NAMES

NONE = Spread(0.0, 0.0, 0.0)


def evaluated(recall: float, baselines: dict[str, float], weight: float = 0.5) -> Report:
    quality, better = (Quality(value, value / 2, 0.0, 0.01, 0.005) for value in (recall, 1.2 * recall))
    rows = [ModeRow("", mode, 10, each, NONE, NONE, 0.0, 7) for mode, each in ((PLAIN, quality), (f"blend {weight:g}", better))]
    others = [
        BaselineRow(name, 10, Quality(value, value / 4, 0.0, 0.02, 0.01), "l2 5" * (name == "EASE")) for name, value in baselines.items()
    ]
    return Report({}, users=1234, warm_users=6, rows=rows, baselines=others, generate_ms={}, generate_equal={})


def written(folder: Path, name: str, report: Report) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "report.json").write_bytes(report.encode())


def pretend(stage: Stage) -> None:
    """Leave what a stage would have made."""
    if stage.result.name == "report.json":
        stage.result.parent.mkdir(parents=True)
        stage.result.write_bytes(evaluated(0.03, {"EASE": 0.02} if "baselines" in stage.name else {}).encode())
    elif "trial" in stage.name or "target" in stage.name:
        stage.result.mkdir(parents=True)
        record = {"metrics": {"best_epoch": 11}, "settings": {"epochs": 15.0}}
        (stage.result / "training.json").write_text(json.dumps(record))
    else:
        stage.result.parent.mkdir(parents=True, exist_ok=True)
        stage.result.touch()


def flag(stage: Stage, name: str) -> str:
    return stage.arguments[stage.arguments.index(name) + 1]


@pytest.mark.parametrize("name", ["beauty", "movielens"])
def test_every_stage_finds_what_earlier_ones_have_made(name: str, tmp_path: Path) -> None:
    (tmp_path / "shared" / "beauty").mkdir(parents=True)
    work = tmp_path / "work"
    source = data_set(name, tmp_path / "shared", work)
    made, names = {str(work / "movielens" / "raw")}, []
    for some in (shared_stages(source, work), baseline_stages(source, work), seed_stages(source, work, 0), seed_stages(source, work, 1)):
        for stage in some:
            needed = {part for part in stage.arguments if part.startswith(str(work))}
            assert needed - {str(stage.result), str(stage.result.parent)} <= made
            made |= {str(stage.result)}
            names.append(stage.name)
            pretend(stage)
    assert len(names) == len(set(names)) == 3 + 3 + 2 * 4 + (name == "movielens")


@pytest.mark.parametrize("name", ["beauty", "movielens"])
def test_no_model_has_learnt_the_labels_that_it_is_judged_by(name: str, tmp_path: Path) -> None:
    """Epochs and weight come from the part train; what they are found with is used once, on the test part."""
    (tmp_path / "beauty").mkdir(parents=True)
    source, some = data_set(name, tmp_path, tmp_path / "work"), []
    for stage in seed_stages(source, tmp_path / "work", 3):
        pretend(stage)
        some.append(stage)
    trial, chosen, target, report = some
    assert [flag(stage, "--fit") for stage in (trial, target)] == ["train", "train+valid"]
    assert {flag(stage, "--seed") for stage in (trial, target)} == {"3"}
    assert "--validate-users" not in trial.arguments
    assert (flag(target, "--epochs"), flag(target, "--validate-users")) == ("11", "0")
    if source.taught:
        assert [Path(flag(stage, "--neighbours")).name.split(".")[0] for stage in (trial, target)] == ["train", "train+valid"]
    assert [Path(flag(stage, "--neighbours")).name.split(".")[0] for stage in (chosen, report)] == ["train", "train+valid"]
    assert [flag(stage, "--part") for stage in (chosen, report)] == ["valid", "test"]
    assert [flag(stage, "--blend") for stage in (chosen, report)] == [WEIGHTS, "0.5"]
    assert [flag(stage, "--target") for stage in (chosen, report)] == [str(trial.result), str(target.result)]


def test_the_table_has_the_target_over_its_seeds_beside_the_best_baseline(tmp_path: Path) -> None:
    written(tmp_path / "beauty", "report-0", evaluated(0.03, {}))
    written(tmp_path / "beauty", "report-1", evaluated(0.02, {}, weight=1))
    written(tmp_path / "beauty", "baselines-closed-forms", evaluated(0.5, {"item-kNN": 0.02, "EASE": 0.025, "most popular": 0.01}))
    written(tmp_path / "beauty", "baselines-gru4rec", evaluated(0.5, {"GRU4Rec": 0.02, "co-occurrence": 0.01}))
    written(tmp_path / "movielens", "baselines-closed-forms", evaluated(0.5, dict.fromkeys(NAMES.values(), 0.2)))
    text = write_table(tmp_path, ["beauty", "games", "movielens"], tmp_path / "results", seeds=3).read_text()
    assert "## beauty, 1,234 users" in text
    assert "## games" not in text
    assert "| target, 2 seeds | 0.0250 ± 0.0100 | ± 0.0050 | 0.0125 ± 0.0050 | ± 0.0025 | 1.00, 2.00 | 0.95 | open |" in text
    assert (
        "| blended, weight 0.5, 1, 2 seeds | 0.0300 ± 0.0100 | ± 0.0060 | 0.0150 ± 0.0050 | ± 0.0030 | 1.20, 2.40 | 1.08 | open |" in text
    )
    assert "| EASE (l2 5) | 0.0250 ± 0.0200 |  | 0.0063 ± 0.0100 |  | 1.00, 1.00 |  |  |" in text
    assert "| item-kNN | 0.0200 ± 0.0200 |  | 0.0050 ± 0.0100 |  | 0.80, 0.80 |  |  |" in text
    missing = "1 of 3 targets of beauty; SASRec of beauty; 3 of 3 targets of games; all baselines of games; 3 of 3 targets of movielens"
    assert f"Not run yet: {missing}. `make quality` goes on with them." in text


def test_a_bar_is_reached_by_both_figures_or_missed(tmp_path: Path) -> None:
    for name in ("beauty", "movielens"):
        written(tmp_path / name, "report-0", evaluated(0.0195, {}))
        written(tmp_path / name, "baselines-all", evaluated(0.5, dict.fromkeys(NAMES.values(), 0.02)))
    text = write_table(tmp_path, ["beauty", "movielens"], tmp_path / "results", seeds=1).read_text()
    assert "Not run yet" not in text
    alone = [line for line in text.splitlines() if line.startswith("| target")]
    assert [line.split(" | ")[-2:] for line in alone] == [["0.95", "reached |"], ["1.00", "missed |"]]


def test_what_is_done_is_kept_and_nothing_begins_after_the_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = DataSet("beauty", tmp_path / "data")
    monkeypatch.setattr(quality, "data_set", lambda *_: source)
    ran = []

    def instead(self: Pipeline, title: str, some: list[Stage], side_by_side: int = 1, threads: int | None = None) -> None:
        ran.append(title)
        pretend(some[0])

    monkeypatch.setattr(Pipeline, "run", instead)
    given = ["beauty"], tmp_path / "work", tmp_path, tmp_path / "results"
    with pytest.raises(BenchmarkError, match="No evaluation is done yet"):
        run(*given, seeds=1, minutes=0.0)
    assert ran == []
    run(*given, seeds=1, minutes=None)
    shared = ["beauty-catalog", "beauty-neighbours-train", "beauty-neighbours-train+valid"]
    each = ["beauty-trial-{}", "beauty-trial-report-{}", "beauty-target-{}", "beauty-report-{}"]
    baselines = ["beauty-baselines-closed-forms", "beauty-baselines-gru4rec", "beauty-baselines-sasrec"]
    assert ran == [*shared, *baselines, *(name.format(0) for name in each)]
    run(*given, seeds=2, minutes=None)
    assert ran[10:] == [name.format(1) for name in each]


def test_data_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="There is no data set 'shop': choose beauty, games, movielens"):
        data_set("shop", tmp_path, tmp_path)
    with pytest.raises(BenchmarkError, match="pass the directory that holds games with --shared"):
        data_set("games", tmp_path, tmp_path)
