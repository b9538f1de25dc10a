"""Beam widths side by side: the figures are those of lists of that width, and what is slower says so."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.systems.widths import measure
from drafting.alignment.data.loading import load_split
from drafting.alignment.data.splits import SplitRule
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from drafting.embeddings.learnt import Learnt, learnt_file, write_learnt
from drafting.neighbours.source_check import source_of
from tests.models import random_catalog, save_random_interactions, save_random_model
from verification.evaluation.baselines.ranking import quality_of
from verification.evaluation.users import held_out
from verification.recommender import Recommender
from verification.result import BeamResult


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return random_catalog(items=60, depth=3, codes=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Path:
    folder = tmp_path_factory.mktemp("widths")
    save_random_model(folder / "target", catalog, max_items=8)
    catalog.save(folder / "catalog.jsonl")
    save_random_interactions(folder, catalog, users=12, events=6)
    return folder


def test_every_width_has_the_figures_of_its_lists(folder: Path, catalog: Catalog) -> None:
    recommender = Recommender.load(folder / "target", catalog, kv_memory_gib=0.02)
    users = held_out(load_split(folder, catalog), "test", 10)
    rows = measure(recommender, users, [4, 40], k=4, timed=5)
    assert [row.width for row in rows] == [4, 40]
    for row in rows:
        found = recommender.recommend(users.states(), 4, row.width, users.histories)
        assert row.quality == quality_of(users, [[item.item for item in result.items] for result in found], 4)
        assert 0 < row.ms.mean <= row.ms.p99
        assert row.lists > 0
    assert rows[0].quality != rows[1].quality
    recommender.close()


def test_no_width_always_comes_behind_the_same_other(folder: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The narrowest always came behind the widest, whose work is what the caches hold then; so it mostly does in turns that rotate."""
    asked: list[int] = []
    recommender = Recommender.load(folder / "target", catalog, kv_memory_gib=0.02)
    real = recommender.recommend

    def recommend(histories: Any, k: int, beam_width: int, *more: Any, **named: Any) -> Iterator[BeamResult]:
        asked.append(beam_width)
        return real(histories, k, beam_width, *more, **named)

    monkeypatch.setattr(recommender, "recommend", recommend)
    measure(recommender, held_out(load_split(folder, catalog), "test", 10), [4, 8, 12], k=4, timed=10)
    turns = [tuple(asked[start : start + 3]) for start in range(0, len(asked), 3)]
    assert all(sorted(turn) == [4, 8, 12] for turn in turns)
    assert len(set(turns)) > 3
    recommender.close()


def test_the_command_prints_a_table_of_the_widths_that_hold_k(folder: Path) -> None:
    """Beams wider than those of an engine by default were refused in the middle of the measurement."""
    inputs = ("--target", str(folder / "target"), "--catalog", str(folder / "catalog.jsonl"), "--data", str(folder))
    result = CliRunner().invoke(app, ["widths", *inputs, "--widths", "2,4,300", "--k", "4", "--timed", "2"])
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[1:]] == ["| 4", "| 300"]


def test_a_table_without_a_width_is_a_sentence(folder: Path) -> None:
    inputs = ("--target", str(folder / "target"), "--catalog", str(folder / "catalog.jsonl"), "--data", str(folder))
    result = CliRunner().invoke(app, ["widths", *inputs, "--widths", "2,4", "--k", "5"])
    assert result.exit_code == 1
    assert "A list of 5 takes a beam of at least 5: give wider --widths, or a smaller --k." in result.stderr


def test_users_are_those_of_the_split_that_the_target_was_trained_with(folder: Path, tmp_path: Path) -> None:
    """One user's events are all of the newest, so no user has some before them."""
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "training.json").write_text(json.dumps({"settings": {"split": "global-time"}}))
    lines = [{"user": time // 4, "item": f"item-{time}", "timestamp": time} for time in range(40)]
    (tmp_path / "interactions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    inputs = ("--target", str(tmp_path / "target"), "--catalog", str(folder / "catalog.jsonl"), "--data", str(tmp_path))
    result = CliRunner().invoke(app, ["widths", *inputs])
    assert result.exit_code == 1
    assert "There are no users to evaluate" in result.stderr


def test_one_timed_user_is_timed(folder: Path, catalog: Catalog) -> None:
    """They are fewer than warm up, and each is asked again."""
    recommender = Recommender.load(folder / "target", catalog, kv_memory_gib=0.02)
    (row,) = measure(recommender, held_out(load_split(folder, catalog), "test", 2), [4], k=4, timed=1)
    assert row.ms.mean == row.ms.p99 > 0
    recommender.close()


def test_labels_that_were_learnt_say_nothing_of_a_width(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "training.json").write_text(json.dumps({"settings": {"fit": "all"}}))
    inputs = ("--catalog", str(folder / "catalog.jsonl"), "--data", str(folder))
    learnt = CliRunner().invoke(app, ["widths", "--target", str(tmp_path / "target"), *inputs])
    assert learnt.exit_code == 1
    assert "has learnt the part test (--fit all), so figures there would say nothing" in learnt.stderr
    record = Learnt(load_catalog(folder / "catalog.jsonl").version, "all", source_of(folder, SplitRule()))
    catalog_file = tmp_path / "catalog.jsonl"
    catalog_file.write_bytes((folder / "catalog.jsonl").read_bytes())
    write_learnt(learnt_file(catalog_file), record)
    inputs = ("--catalog", str(catalog_file), "--data", str(folder))
    known = CliRunner().invoke(app, ["widths", "--target", str(folder / "target"), *inputs])
    assert known.exit_code == 1
    assert "from the part test, too" in known.stderr
