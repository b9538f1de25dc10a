"""The evaluation of random models: that it counts what happens, and that its report says so."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from matplotlib.figure import Figure
from transformers import AutoModelForCausalLM, AutoTokenizer

from drafting.alignment.data.interactions import Interactions, Split
from drafting.beam.rule import Verification
from drafting.catalog.catalog import Catalog
from drafting.catalog.text_column import TextColumn
from drafting.errors import SetupError
from drafting.neighbours.candidates import Blending, CatalogNeighbours
from drafting.neighbours.model import NeighbourModel
from drafting.trie.arrays import offsets_of
from tests.models import random_catalog, save_random_model
from tests.scoring import forward_scores
from tests.t5_models import save_t5_model
from verification.evaluation.blending import blended_mode, lists_by_weight
from verification.evaluation.markdown import to_markdown
from verification.evaluation.plots import write_plots
from verification.evaluation.report import Report
from verification.evaluation.run import EvaluationSettings, evaluate
from verification.evaluation.searching import NO_PLAN, Beam, Mode, search_all
from verification.evaluation.seeds import describe_drafts, over_seeds
from verification.evaluation.users import held_out
from verification.recommender import Recommender

USERS = 14


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return random_catalog(items=80, depth=3, codes=6)


@pytest.fixture(scope="module")
def split(catalog: Catalog) -> Split:
    rng = np.random.default_rng(0)

    def some(least: int, most: int) -> Interactions:
        lengths = rng.integers(least, most, size=USERS)
        items = rng.integers(len(catalog), size=lengths.sum()).astype(np.int32)
        return Interactions(tuple(map(str, range(USERS))), offsets_of(lengths), items)

    return Split(some(2, 8), some(0, 2), some(1, 3))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_random_model(folder / "target", catalog, max_items=8)
    save_random_model(folder / "stranger", catalog, hidden=32, layers=1, max_items=8, seed=3)
    return folder


@pytest.fixture(scope="module")
def report(models: Path, catalog: Catalog, split: Split) -> Report:
    settings = EvaluationSettings(ks=(2, 4), modes=tuple(Verification), plan="beam:8", timed=3, generated=2, kv_memory_gib=0.01)
    # The target as its own draft is never wrong; a stranger often is.
    drafts = {"itself": models / "target", "stranger": models / "stranger"}
    return evaluate(models / "target", drafts, catalog, split, settings)


def test_strict_lists_share_a_beam_as_wide_as_served_and_as_the_plan_allows(report: Report) -> None:
    for row in report.rows:
        assert row.beam_width == (row.k if row.mode in ("gumbel", "relaxed") else 8)


def test_strict_lists_have_the_widths_of_each_level(models: Path, catalog: Catalog, split: Split) -> None:
    """The row says them, they are searched with, and `generate`, which has no such beams, is not asked."""
    modes = (Verification.STRICT, Verification.GUMBEL)
    settings = EvaluationSettings(ks=(4,), modes=modes, plan="beam:8", timed=2, kv_memory_gib=0.01, baselines=(), beam_widths=(1, 4))
    found = evaluate(models / "target", {"itself": models / "target"}, catalog, split, settings)
    assert [(row.mode, row.beam) for row in found.rows] == [("plain", "1, 4"), ("strict", "1, 4"), ("gumbel", "4")]
    assert found.rows[1].lists_equal == found.users
    assert not found.generate_ms
    users = held_out(split, "test")
    recommender = Recommender.load(models / "target", catalog, kv_memory_gib=0.01)
    plain = Mode("", "plain", NO_PLAN)
    narrow, wide = (search_all(recommender, plain, users.states(), 4, beam, lambda _: None).lists for beam in (Beam(4, (1, 4)), Beam(4)))
    assert narrow == [[item.item for item in result.items] for result in recommender.recommend(users.states(), 4, beam_widths=(1, 4))]
    assert narrow != wide
    recommender.close()
    assert "| 4 | 1, 4 |" in to_markdown(found)


def test_every_draft_mode_and_length_has_a_row(report: Report) -> None:
    expected = [("", "plain", k) for k in (2, 4)] + [(d, str(m), k) for d in ("itself", "stranger") for m in Verification for k in (2, 4)]
    assert sorted((row.draft, row.mode, row.k) for row in report.rows) == sorted(expected)
    assert sorted((row.name, row.k) for row in report.baselines) == [
        (name, k) for name in ("EASE", "co-occurrence", "item-kNN", "most popular") for k in (2, 4)
    ]


def test_strict_lists_are_plain_beam_searchs(report: Report) -> None:
    plain = {row.k: row for row in report.rows if row.mode == "plain"}
    strict = [row for row in report.rows if row.mode == "strict"]
    assert len(strict) == 4
    for row in strict:
        assert row.lists_equal == report.users == USERS
        assert row.quality == plain[row.k].quality
        assert row.accepted_steps.mean + row.target_forwards.mean == pytest.approx(3)


def test_a_perfect_draft_saves_every_step(report: Report) -> None:
    steps = {(row.draft, row.k): row.accepted_steps.mean for row in report.rows if row.mode == "strict"}
    assert steps["itself", 2] == steps["itself", 4] == 2
    assert steps["stranger", 4] < 2


def test_sampled_lists_are_counted_as_different(report: Report) -> None:
    assert all(row.lists_equal < USERS for row in report.rows if row.mode in ("gumbel", "relaxed") and row.k == 4)


def test_generate_finds_the_same_lists(report: Report) -> None:
    assert report.generate_equal == {2: 2, 4: 2}
    assert all(ms.mean > 0 for ms in report.generate_ms.values())


def test_a_model_that_generate_cannot_search_with_is_evaluated_without_it(tmp_path: Path, catalog: Catalog, split: Split) -> None:
    """transformers makes the cache of a T5 for as many layers as its encoder has."""
    target = save_t5_model(tmp_path, catalog, num_layers=1, num_decoder_layers=2, max_items=8)
    settings = EvaluationSettings(ks=(2,), baselines=(), timed=1, generated=1, kv_memory_gib=0.01)
    report = evaluate(target, {}, catalog, split, settings)
    assert len(report.rows) == 1
    assert not report.generate_ms
    assert "transformers' generate is left out: transformers' own search ends in IndexError (list index" in to_markdown(report)


def test_plain_is_the_measure_of_speed(report: Report) -> None:
    for row in report.rows:
        assert row.timing is not None
        assert row.timing.ms.p50 <= row.timing.ms.p99
        if row.mode == "plain":
            assert row.timing.speedup == 1.0


def test_a_report_can_be_kept_and_plotted(tmp_path: Path, report: Report) -> None:
    kept = json.loads(report.encode())
    assert kept["users"] == USERS
    assert kept["setting"]["settings"]["plan"] == "beam:8"
    assert [path.name for path in write_plots(report, tmp_path)] == ["accepted_steps.png", "recall_speed.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_a_blend_has_its_name_in_the_plot(tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no comma before it, as there is no draft."""
    told: list[str] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: told.extend(figure.axes[0].get_legend_handles_labels()[1]))
    blended = msgspec.structs.replace(report.rows[0], draft="", mode="blend 0.5")
    write_plots(msgspec.structs.replace(report, rows=[*report.rows, blended]), tmp_path)
    assert {"plain beam search", "blend 0.5", "itself, strict"} <= set(told)


def test_a_report_reads_as_markdown(report: Report) -> None:
    text = to_markdown(report)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert sum(" strict " in row for row in rows) == 8, "two drafts at two lengths, and the same once more by objective"
    assert f"| {USERS} of {USERS} |" in text
    assert len({line.count("|") for line in text.split("By objective")[0].splitlines() if line.startswith("|")}) == 1


def test_drafts_of_one_objective_are_joined(report: Report) -> None:
    both = {name: says | {"objective": "magic"} for name, says in report.setting["drafts"].items()}
    renamed = msgspec.structs.replace(report, setting=report.setting | {"drafts": both})
    joined = next(row for row in over_seeds(renamed) if (row.mode, row.k) == ("strict", 4))
    steps = [row.accepted_steps.mean for row in report.rows if (row.mode, row.k) == ("strict", 4)]
    assert joined.drafts == len(steps) == 2
    assert joined.accepted_steps == pytest.approx(np.mean(steps))
    assert joined.deviation == pytest.approx(np.std(steps, ddof=1))
    assert {row.objective for row in over_seeds(report)} == {"itself", "stranger"}, "without training.json a draft's name stands for it"


def test_drafts_that_differ_in_more_than_their_seeds_are_not_joined(tmp_path: Path) -> None:
    drafts = {}
    for name, alpha, seed in (("a", 0.7, 0), ("b", 0.7, 1), ("c", 0.9, 0)):
        drafts[name] = tmp_path / name
        drafts[name].mkdir()
        settings = {"objective": "atspeed-s", "alpha": alpha, "seed": seed}
        (drafts[name] / "training.json").write_text(json.dumps({"settings": settings}))
    told = {name: (says["objective"], says["seed"]) for name, says in describe_drafts(drafts).items()}
    assert told == {"a": ("atspeed-s (a)", 0), "b": ("atspeed-s (a)", 1), "c": ("atspeed-s (c)", 0)}
    del drafts["c"]
    assert {says["objective"] for says in describe_drafts(drafts).values()} == {"atspeed-s"}


def test_a_target_alone_is_evaluated_too(models: Path, catalog: Catalog, split: Split, tmp_path: Path) -> None:
    settings = EvaluationSettings(ks=(2,), timed=0, generated=0, most_users=5, part="test", kv_memory_gib=0.01)
    alone = evaluate(models / "target", {}, catalog, split, settings)
    assert [(row.mode, row.timing) for row in alone.rows] == [("plain", None)]
    assert alone.users == 5
    assert not alone.generate_ms
    assert write_plots(alone, tmp_path) == []


@pytest.mark.parametrize("keep_seen", [False, True])
def test_seen_items_are_left_out_of_every_list_or_of_none(models: Path, catalog: Catalog, keep_seen: bool) -> None:
    """Users want again what they have seen, and lists have room for the whole catalog."""
    histories = np.random.default_rng(1).integers(len(catalog), size=(USERS, 5)).astype(np.int32)

    def part(items: np.ndarray) -> Interactions:
        return Interactions(tuple(map(str, range(USERS))), offsets_of([items.shape[1]] * USERS), items.reshape(-1))

    split = Split(part(histories), part(histories[:, :1]), part(histories[:, :1]))
    settings = EvaluationSettings(ks=(len(catalog),), timed=0, kv_memory_gib=0.01, keep_seen=keep_seen)
    found = evaluate(models / "target", {}, catalog, split, settings)
    assert [row.quality.recall for row in (*found.rows, *found.baselines)] == [float(keep_seen)] * 5
    assert f"seen items {'kept' if keep_seen else 'left out'};" in to_markdown(found)


def test_blended_lists_stand_beside_the_targets_own(models: Path, catalog: Catalog, split: Split) -> None:
    """Of three weights, one that the validation users' lists choose: the labels are what the neighbour model says, so a large one."""
    items = len(catalog)
    nearest = np.zeros((items, items))
    for user in range(USERS):
        for part, known in ((split.valid, split.train), (split.test, split.train.followed_by(split.valid))):
            nearest[np.ix_(known.history(user)[-1:], part.history(user))] = 1.0
    rows, columns = np.nonzero(nearest)
    offsets = offsets_of(np.bincount(rows, minlength=items))
    names = TextColumn.of(catalog.item_ids)
    model = NeighbourModel(names, offsets, columns.astype(np.int32), np.ones(len(rows), np.float32), 0.5, 3, "knn")
    settings = EvaluationSettings(
        ks=(5,), timed=2, generated=0, kv_memory_gib=0.01, keep_seen=True, baselines=(), blend=(0.01, 50.0), plan="beam:50"
    )
    for weights, mode in (((0.01, 50.0), "blend 50"), ((0.01,), "blend 0.01")):
        settings = msgspec.structs.replace(settings, blend=weights)
        drafts, neighbours = {"itself": models / "target"}, CatalogNeighbours.of(model, catalog)
        report = evaluate(models / "target", drafts, catalog, split, settings, neighbours=neighbours)
        plain, blended, drafted = report.rows
        assert (drafted.mode, drafted.accepted_steps.mean) == ("strict", 2), "whatever the weight was chosen with, a draft has its plan"
        assert (plain.mode, blended.mode) == ("plain", mode)
        assert plain.beam_width == blended.beam_width == 50
        assert blended.timing is not None
        assert mode in to_markdown(report)
        if mode == "blend 50":
            assert blended.quality.recall > 0.2 + plain.quality.recall


@pytest.mark.parametrize(("options", "beam"), [({}, Beam(20)), ({"beam_widths": (3, 8)}, Beam(8, (3, 8)))])
def test_a_weight_is_chosen_by_lists_of_the_beam_that_it_is_applied_with(
    models: Path, catalog: Catalog, split: Split, options: dict[str, Any], beam: Beam, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a draft whose plan is narrower than the beam that is served, and with widths of each level."""
    chosen_with: list[Beam] = []

    def choosing(*models: Any, beam: Beam, **asked: Any) -> Mode:
        chosen_with.append(beam)
        return blended_mode(*models, beam=beam, **asked)

    monkeypatch.setattr("verification.evaluation.run.blended_mode", choosing)
    names = TextColumn.of(catalog.item_ids)
    model = NeighbourModel(names, np.zeros(len(catalog) + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 0.5, 3, "knn")
    settings = EvaluationSettings(ks=(5,), timed=0, kv_memory_gib=0.01, baselines=(), blend=(0.1, 1.0), plan="beam:20", **options)
    drafts, neighbours = {"itself": models / "target"}, CatalogNeighbours.of(model, catalog)
    report = evaluate(models / "target", drafts, catalog, split, settings, neighbours=neighbours)
    assert chosen_with == [beam]
    assert {(row.mode, row.beam_width, row.beam_widths) for row in report.rows} == {
        (mode, beam.width, beam.widths) for mode in ("plain", "blend 0.1", "strict")
    }


def test_widths_beyond_the_plan_are_refused_as_a_server_refuses_them(models: Path, catalog: Catalog, split: Split) -> None:
    settings = EvaluationSettings(ks=(4,), plan="beam:8", timed=0, kv_memory_gib=0.01, baselines=(), beam_widths=(9, 4), most_users=2)
    with pytest.raises(SetupError, match=r"The plan beam:8 drafts fewer prefixes than the 9 .* widths of at most 8, .*--plan beam:9"):
        evaluate(models / "target", {"itself": models / "target"}, catalog, split, settings)
    assert len(evaluate(models / "target", {}, catalog, split, settings).rows) == 1, "nothing is drafted for a target alone"


@pytest.mark.parametrize(("keep_seen", "beam"), [(False, Beam(12)), (True, Beam(12)), (False, Beam(9, (2, 9)))])
def test_one_search_ranked_by_every_weight_gives_the_lists_of_a_search_for_each(
    models: Path, catalog: Catalog, split: Split, keep_seen: bool, beam: Beam
) -> None:
    """Items share identifiers, users have no candidates, few or many, and some of their items are left out."""
    rng = np.random.default_rng(1)
    weights = rng.random((len(catalog), len(catalog))).astype(np.float32) * (rng.random((len(catalog), 1)) < 0.6)
    weights[rng.random(weights.shape) < 0.9] = 0
    rows, columns = np.nonzero(weights)
    offsets = offsets_of(np.bincount(rows, minlength=len(catalog)))
    model = NeighbourModel(TextColumn.of(catalog.item_ids), offsets, columns.astype(np.int32), weights[rows, columns], 0.5, 3, "knn")
    neighbours, users = CatalogNeighbours.of(model, catalog), held_out(split, "test")
    settings = EvaluationSettings(keep_seen=keep_seen)
    recommender = Recommender.load(models / "target", catalog, kv_memory_gib=0.02)
    asked = (0.01, 0.5, 1.0, 3.0, 50.0)
    found = lists_by_weight(recommender, neighbours, asked, users, settings, beam, lambda _: None)
    excluded = None if keep_seen else users.histories
    for weight in asked:
        mode = Mode("", "blend", NO_PLAN, blend=Blending(neighbours, weight))
        k = min(10, beam.width)
        assert found[weight] == search_all(recommender, mode, users.states(), k, beam, lambda _: None, excluded).lists
    assert len({str(lists) for lists in found.values()}) > 2
    recommender.close()


def test_generate_normalises_as_the_target_does(models: Path, catalog: Catalog, split: Split) -> None:
    """Over the children of each prefix, with what users have met left out."""
    settings = EvaluationSettings(ks=(2,), baselines=(), timed=4, generated=4, kv_memory_gib=0.01, normalise="children")
    assert evaluate(models / "target", {}, catalog, split, settings).generate_equal == {2: 4}


@pytest.mark.parametrize("keep_seen", [False, True])
def test_the_whole_catalog_is_ranked_by_scores_of_all_items(models: Path, catalog: Catalog, split: Split, keep_seen: bool) -> None:
    """Beside an oracle, and a beam that loses nothing, whose lists have the same figures."""
    settings = EvaluationSettings(
        ks=(3, 10), timed=0, kv_memory_gib=0.02, keep_seen=keep_seen, baselines=(), beam_width=len(catalog), exhaustive=True
    )
    report = evaluate(models / "target", {}, catalog, split, settings)
    whole, users = report.exhaustive, held_out(split)
    assert whole is not None
    assert whole.quality == {row.k: row.quality for row in report.rows}
    model = AutoModelForCausalLM.from_pretrained(models / "target").eval()
    identifiers = catalog.token_ids(AutoTokenizer.from_pretrained(models / "target").get_vocab())
    recommender = Recommender.load(models / "target", catalog, kv_memory_gib=0.01)
    ranks, gains, areas = [], [], []
    for state, history, labels in zip(users.states(), users.histories, users.labels, strict=True):
        scores = forward_scores(model, recommender.prompts.build(state), identifiers)
        gone = set() if keep_seen else set(history)
        order = sorted((item for item in range(len(catalog)) if item not in gone), key=lambda item: (-scores[item], item))
        found = sorted(order.index(label) + 1 if label in order else len(catalog) - place for place, label in enumerate(labels))
        ranks.append(found[0])
        gains.append(sum(1 / np.log2(1 + rank) for rank in found) / sum(1 / np.log2(1 + rank) for rank in range(1, len(found) + 1)))
        others = [item for item in order if item not in labels]
        pairs = [(scores[label] if label not in gone else -np.inf, scores[other]) for label in labels for other in others]
        areas.append(np.mean([(one > other) + 0.5 * (one == other) for one, other in pairs]))
    assert (whole.rank.mean, whole.rank.p50) == pytest.approx((np.mean(ranks), np.median(ranks)), abs=0.2)
    assert (whole.ndcg, whole.auc) == pytest.approx((np.mean(gains), np.mean(areas)), abs=2e-3)
    text = to_markdown(report)
    assert f"rank {whole.rank.mean:.1f} on average" in text
    assert f"NDCG {whole.ndcg:.4f}, AUC {whole.auc:.4f}." in text
    recommender.close()
