"""The driver of `make quality`: its stages in order, its table from what is there, and what it says when something is missing."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from benchmarks import quality
from benchmarks.endings import BenchmarkError
from benchmarks.pipeline import Pipeline, Stage
from benchmarks.quality import WEIGHTS, DataSet, Stages, compared, data_set, run
from benchmarks.quality_table import Compared, write_table
from drafting.alignment.recipes import RECIPES
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


def listed(shared: Path) -> None:
    """Put the list of Beauty's items where it is looked for."""
    (shared / "beauty").mkdir(parents=True)
    (shared / "beauty" / "beauty.index.json").touch()


def flag(stage: Stage, name: str) -> str:
    return stage.arguments[stage.arguments.index(name) + 1]


@pytest.mark.parametrize("name", ["beauty", "movielens"])
def test_every_stage_finds_what_earlier_ones_have_made(name: str, tmp_path: Path) -> None:
    listed(tmp_path / "shared")
    work = tmp_path / "work"
    stages = Stages(data_set(name, tmp_path / "shared", work), work)
    made, names = {str(work / "movielens" / "raw")}, []
    for some in (stages.shared(), stages.baselines(), stages.trial(), stages.seed(0), stages.seed(1)):
        for stage in some:
            needed = {part for part in stage.arguments if part.startswith(str(work))}
            assert needed - {str(stage.result), str(stage.result.parent)} <= made
            made |= {str(stage.result)}
            names.append(stage.name)
            pretend(stage)
    assert len(names) == len(set(names)) == 4 + 3 + 2 + 2 * 2 + (name == "movielens")


def learnt(stage: Stage) -> str:
    """The part that catalog and neighbour model know which a stage reads."""
    given = [name for name in ("--catalog", "--neighbours") if name in stage.arguments]
    (known,) = {Path(flag(stage, name)).name.split("-")[1] for name in given}
    return known


@pytest.mark.parametrize("name", ["beauty", "movielens"])
def test_no_model_has_learnt_the_labels_that_it_is_judged_by(name: str, tmp_path: Path) -> None:
    """Epochs and weight come from the part train; what they are found with is used once, on the test part."""
    listed(tmp_path)
    source = data_set(name, tmp_path, tmp_path / "work")
    stages = Stages(source, tmp_path / "work")
    trial, chosen = stages.trial()
    pretend(trial)
    assert stages.seeds(3) == []
    pretend(chosen)
    assert len(stages.seeds(3)) == 3
    target, report = stages.seed(3)
    assert [flag(stage, "--fit") for stage in (trial, target)] == ["train", "train+valid"]
    assert [flag(stage, "--seed") for stage in (trial, target)] == ["0", "3"]
    assert ("--validate-users", "0") not in pairwise(trial.arguments)
    assert (flag(target, "--epochs"), flag(target, "--validate-users")) == ("11", "0")
    assert [learnt(stage) for stage in (trial, chosen, target, report)] == ["train", "train", "train+valid", "train+valid"]
    assert [flag(stage, "--part") for stage in (chosen, report)] == ["valid", "test"]
    assert [flag(stage, "--blend") for stage in (chosen, report)] == [WEIGHTS, "0.5"]
    assert [flag(stage, "--target") for stage in (chosen, report)] == [str(trial.result), str(target.result)]


def test_the_table_has_the_target_over_its_seeds_beside_the_best_baseline(tmp_path: Path) -> None:
    closed_forms = evaluated(0.5, {"item-kNN": 0.02, "EASE": 0.025, "most popular": 0.01})
    beauty = Compared(
        [evaluated(0.03, {}), evaluated(0.02, {}, weight=1)], [closed_forms, evaluated(0.5, {"GRU4Rec": 0.02, "co-occurrence": 0.01})]
    )
    movielens = Compared([], [evaluated(0.5, dict.fromkeys(NAMES.values(), 0.2))])
    found = {"beauty": beauty, "games": Compared([], []), "movielens": movielens}
    text = write_table(found, tmp_path / "results", seeds=3).read_text()
    assert "## beauty, 1,234 users" in text
    assert "## games" not in text
    shares = "beauty 1.00 and 2.00 alone, 1.20 and 2.40 blended."
    assert f"as shares of the best baseline's Recall@10 and NDCG@10: {shares}" in text
    assert "| target, 2 seeds | 0.0250 ± 0.0100 | ± 0.0050 | 0.0125 ± 0.0050 | ± 0.0025 | 1.00, 2.00 | 0.95 | open |" in text
    assert (
        "| blended, weight 0.5, 1, 2 seeds | 0.0300 ± 0.0100 | ± 0.0060 | 0.0150 ± 0.0050 | ± 0.0030 | 1.20, 2.40 | 1.08 | open |" in text
    )
    assert "| EASE (l2 5) | 0.0250 ± 0.0200 |  | 0.0063 ± 0.0100 |  | 1.00, 1.00 |  |  |" in text
    assert "| item-kNN | 0.0200 ± 0.0200 |  | 0.0050 ± 0.0100 |  | 0.80, 0.80 |  |  |" in text
    missing = "1 of 3 targets of beauty; SASRec of beauty; 3 of 3 targets of games; all baselines of games; 3 of 3 targets of movielens"
    assert f"Not run yet: {missing}. `make quality` goes on with them." in text


def test_a_network_is_told_and_judged_by_its_mean_over_seeds(tmp_path: Path) -> None:
    report = evaluated(0.5, {"EASE": 0.019})
    seeds = [Quality(recall, recall / 2, 0.0, 0.01, 0.005) for recall in (0.01, 0.03, 0.02)]
    row = BaselineRow("GRU4Rec", 10, Quality.mean(seeds), seeds=seeds)
    text = write_table(
        {"beauty": Compared([], [msgspec.structs.replace(report, baselines=[*report.baselines, row])])}, tmp_path, seeds=1
    ).read_text()
    assert "| GRU4Rec | 0.0200 ± 0.0100 | ± 0.0058 | 0.0100 ± 0.0050 | ± 0.0029 | 1.00, 1.00 |  |  |" in text
    assert "| 0.95, 0.47 |" in text


def test_a_bar_is_reached_by_both_figures_or_missed(tmp_path: Path) -> None:
    compared = Compared([evaluated(0.0195, {})], [evaluated(0.5, dict.fromkeys(NAMES.values(), 0.02))])
    text = write_table({"beauty": compared, "movielens": compared}, tmp_path / "results", seeds=1).read_text()
    assert "Not run yet" not in text
    alone = [line for line in text.splitlines() if line.startswith("| target")]
    assert [line.split(" | ")[-2:] for line in alone] == [["0.95", "reached |"], ["1.00", "missed |"]]


def test_a_bar_that_is_missed_beside_some_baselines_is_not_open(tmp_path: Path) -> None:
    """What the others find can only lower a share."""
    compared = Compared([evaluated(0.0185, {})], [evaluated(0.5, {"EASE": 0.02})])
    text = write_table({"beauty": compared}, tmp_path / "results", seeds=1).read_text()
    assert "SASRec, GRU4Rec of beauty" in text
    rows = [line for line in text.splitlines() if line.startswith(("| target", "| blended"))]
    assert [line.split(" | ")[-2:] for line in rows] == [["0.95", "missed |"], ["1.08", "open |"]]


def test_what_the_page_has_of_data_sets_that_are_not_asked_stays(tmp_path: Path) -> None:
    done = Compared([evaluated(0.03, {})], [evaluated(0.5, dict.fromkeys(NAMES.values(), 0.02))])
    page = write_table({"beauty": done, "games": Compared([], done.baselines), "movielens": done}, tmp_path, seeds=2)
    before = page.read_text().replace("\n\n## beauty", "\n\n**Machine**: one of ours.\n\n## beauty")
    page.write_text(before)
    write_table({"movielens": done}, tmp_path, seeds=2)
    assert page.read_text() == before

    write_table({"beauty": Compared(2 * [evaluated(0.04, {})], done.baselines)}, tmp_path, seeds=2)
    after = page.read_text()
    assert "| target, 2 seeds | 0.0400 ± 0.0100 |" in after
    assert after.partition("## games")[2] == before.partition("## games")[2] != ""
    others = "movielens 1.50 and 3.00 alone, 1.80 and 3.60 blended."
    assert f"NDCG@10: beauty 2.00 and 4.00 alone, 2.40 and 4.80 blended; {others}" in after
    assert "Not run yet: 2 of 2 targets of games; 1 of 2 targets of movielens. `make quality`" in after
    assert "**Machine**: one of ours." in after


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
    shared = ["beauty-catalog-train", "beauty-catalog-train+valid", "beauty-neighbours-train", "beauty-neighbours-train+valid"]
    trial, each = ["beauty-trial", "beauty-trial-report"], ["beauty-target-{}", "beauty-report-{}"]
    baselines = ["beauty-baselines-closed-forms", "beauty-baselines-gru4rec", "beauty-baselines-sasrec"]
    assert ran == [*shared, *trial, *(name.format(0) for name in each), *baselines]
    run(*given, seeds=2, minutes=None)
    assert ran[11:] == [name.format(1) for name in each]


def made(stages: Stages) -> list[Stage]:
    """Pretend to run what is missing of all stages of one seed."""
    some = []
    for chain in (stages.shared(), stages.baselines(), stages.trial(), stages.seed(0)):
        for stage in chain:
            if not stage.result.exists():
                pretend(stage)
                some.append(stage)
    return some


def test_a_changed_recipe_makes_anew_what_depends_on_it_and_nothing_else(tmp_path: Path) -> None:
    source = DataSet("beauty", tmp_path / "data", identifiers=("--levels", "2"), recipe={"--base": "small", "--epochs": "8"})
    stages = Stages(source, tmp_path / "work")
    assert len(made(stages)) == 4 + 3 + 4
    assert made(Stages(source, tmp_path / "work")) == []
    assert len(compared(stages, seeds=1).targets) == 1

    retrained = Stages(replace(source, recipe=source.recipe | {"--epochs": "9"}), tmp_path / "work")
    assert compared(retrained, seeds=1).targets == []
    assert len(compared(retrained, seeds=1).baselines) == 3
    again = ["beauty-trial", "beauty-trial-report", "beauty-target-0", "beauty-report-0"]
    # The trial finds the same number of epochs, so the flags of the target are what they were.
    assert [stage.name for stage in made(retrained)] == again[:2]
    assert len(compared(retrained, seeds=1).targets) == 1

    larger = Stages(replace(source, recipe=source.recipe | {"--base": "base"}), tmp_path / "work")
    assert [stage.name for stage in made(larger)] == again

    rebuilt = Stages(replace(source, identifiers=("--levels", "3")), tmp_path / "work")
    assert not compared(rebuilt, seeds=1).targets
    assert not compared(rebuilt, seeds=1).baselines
    assert len(made(rebuilt)) == 4 + 3 + 4


def test_the_recipe_of_a_preset_is_part_of_what_a_target_is_made_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Stages(DataSet("beauty", tmp_path / "data"), tmp_path / "work")
    before = next(stages.trial()).result
    monkeypatch.setitem(RECIPES, "small", RECIPES["small"] | {"dropout": 0.3})
    assert next(stages.trial()).result != before


def test_where_the_work_lies_changes_no_name(tmp_path: Path) -> None:
    source = DataSet("beauty", tmp_path / "data")
    names = [[stage.result.name for stage in made(Stages(source, tmp_path / work))] for work in ("one", "two")]
    assert names[0] == names[1]


def test_data_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="There is no data set 'shop': choose beauty, games, movielens"):
        data_set("shop", tmp_path, tmp_path)
    with pytest.raises(BenchmarkError, match="pass the directory that holds games with --shared"):
        data_set("games", tmp_path, tmp_path)
