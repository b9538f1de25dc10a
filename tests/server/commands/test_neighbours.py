"""`atspeed neighbours build`: the file, the table, and the sentences for what is wrong."""

import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import drafting.neighbours.build as closed_forms
import drafting.neighbours.knn
from drafting.alignment.data.splits import SplitRule
from drafting.catalog.builder import catalog_of
from drafting.neighbours.build import ease, neighbour_model
from drafting.neighbours.knn import knn
from drafting.neighbours.model import NeighbourModel
from drafting.neighbours.source import Source
from drafting.neighbours.source_check import source_of
from server.commands.neighbours import neighbours_app
from tests.models import random_catalog
from tests.server.test_cli import forget

ITEMS, USERS = 40, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("neighbours")
    catalog = random_catalog(items=ITEMS, depth=2, codes=7)
    # The paper's files number items; the catalog must name them so.
    catalog_of([(str(index), catalog.identifier(index)) for index in range(ITEMS)]).save(folder / "catalog.jsonl")
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    for name, count in (("train", 5), ("valid", 1), ("test", 2)):
        lines = [" ".join(map(str, [user + 1, *rng.integers(1, ITEMS + 1, count)])) for user in range(USERS)]
        (folder / "data" / f"sequential_{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def build(folder: Path, out: Path, *more: str) -> Result:
    given = ["build", "--data", folder / "data", "--catalog", folder / "catalog.jsonl", "--out", out]
    return CliRunner().invoke(neighbours_app, [*map(str, given), *more], env={"COLUMNS": "200"})


@pytest.mark.parametrize("fit", ["train", "train+valid", "all"])
def test_the_file_is_the_chosen_model_of_what_it_was_to_learn(folder: Path, tmp_path: Path, fit: str) -> None:
    from drafting.alignment.data.loading import load_split
    from drafting.catalog.loading import load_catalog

    out = tmp_path / "some.neighbours.safetensors"
    done = build(folder, out, "--fit", fit, "--kept", "9")
    assert done.exit_code == 0, done.output
    chosen = next(line for line in done.output.splitlines() if line.startswith("Making the model: "))
    kind, strength, decay = chosen.removeprefix("Making the model: ").removesuffix(f", from {fit} …").split(", ")
    catalog = load_catalog(folder / "catalog.jsonl")
    split = load_split(folder / "data", catalog)
    known = {"train": split.train, "train+valid": split.train.followed_by(split.valid)}
    known["all"] = known["train+valid"].followed_by(split.test)
    given = float(strength.split()[1])
    weights = ease(known[fit], ITEMS, given) if kind == "ease" else knn(known[fit], ITEMS, (given,))[0]
    expected = neighbour_model(weights, catalog.item_ids, kind=kind, decay=float(decay.split()[1]), window=50, kept=9, fit=fit)
    model = NeighbourModel.load(out)
    assert (model.kind, model.decay, model.window, model.fit) == (expected.kind, expected.decay, 50, fit)
    assert model.source == source_of(folder / "data", SplitRule()) == Source(model.source.data, "given", 1, None)
    assert list(model.item_ids) == list(catalog.item_ids)
    for name in ("indptr", "neighbours", "weights"):
        np.testing.assert_array_equal(vars(model)[name], vars(expected)[name])
    assert "Recall@50" in done.output, "it gives candidates, and is chosen by lists of as many"
    rows = [line for line in done.output.splitlines() if " decay 0" in line and ("knn" in line or "ease" in line)]
    assert len(rows) == 24 + 1, "a row for each tried setting, and the sentence about the chosen one"
    assert sum("chosen" in line for line in rows) == 1
    merits = [(sum(map(float, line.split("│")[3:5])), "chosen" in line) for line in rows[:24]]
    assert max(merit for merit, _ in merits) - max(merit for merit, chosen in merits if chosen) <= 1e-4, "but for what is rounded"
    assert f"Wrote {out}: {len(model.weights)} neighbours of {ITEMS} items" in done.output


def test_the_matrix_is_inverted_on_as_many_threads_as_are_asked_for(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenBLAS reads the variable when it is loaded, which it is here already."""
    forget(monkeypatch, "OPENBLAS_NUM_THREADS")
    done = build(folder, tmp_path / "some.neighbours.safetensors", "--kind", "ease", "--threads", "3")
    assert done.exit_code == 0, done.output
    assert os.environ.get("OPENBLAS_NUM_THREADS") == "3"


def test_ease_is_not_tried_where_its_matrix_has_no_room(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_forms, "MOST_EASE_ITEMS", ITEMS - 1)
    refused = build(folder, tmp_path / "a.neighbours.safetensors", "--kind", "ease")
    assert refused.exit_code == 1
    assert "EASE would invert a matrix of 40 x 40 items" in refused.output
    assert "pass --kind knn" in refused.output
    out = tmp_path / "b.neighbours.safetensors"
    done = build(folder, out)
    assert done.exit_code == 0, done.output
    assert "so only item-kNN is tried" in done.output
    assert NeighbourModel.load(out).kind == "knn"


def test_what_helps_where_neighbours_have_no_room_is_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting.neighbours.knn, "free_memory", lambda: 0)
    refused = build(folder, tmp_path / "a.neighbours.safetensors", "--kind", "knn", "--kept", "7")
    assert refused.exit_code == 1
    assert "use a machine with more memory. Or keep fewer neighbours of each item than --kept 7." in refused.output.replace("\n", " ")


def test_what_is_wrong_is_said_before_anything_is_read(folder: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken.neighbours.safetensors"
    taken.touch()
    for out, more, sentence in (
        (tmp_path / "model.bin", (), "must end in .neighbours.safetensors"),
        (taken, (), "already exists: choose another name, or pass --overwrite"),
        (tmp_path / "none" / "a.neighbours.safetensors", (), "There is no directory"),
        (tmp_path / "a.neighbours.safetensors", ("--kind", "svd"), "--kind takes best, ease, knn, got 'svd'"),
        (tmp_path / "a.neighbours.safetensors", ("--fit", "test"), "--fit takes train, train+valid, all, got 'test'"),
        (tmp_path / "a.neighbours.safetensors", ("--split", "odd"), "There is no split 'odd'"),
    ):
        done = build(folder, out, *more)
        assert done.exit_code == 1
        assert sentence in done.output.replace("\n", " ")
    assert build(folder, taken, "--kind", "knn", "--overwrite").exit_code == 0


def test_it_is_told_how_many_users_choose(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for most, choosing in ((USERS + 1, USERS), (7, 7)):
        monkeypatch.setattr("verification.evaluation.users.CHOOSING_USERS", most)
        done = build(folder, tmp_path / f"{most}.neighbours.safetensors", "--kind", "knn")
        assert done.exit_code == 0, done.output
        assert f"{choosing} users of the validation part, seen items left out" in done.output


def test_settings_are_chosen_by_lists_that_hold_what_users_have_met_where_it_is_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "catalog.jsonl").symlink_to(folder / "catalog.jsonl")
    (tmp_path / "data").mkdir()
    lines = [f'{{"user": {user}, "item": {(user + step % 2) % ITEMS}, "timestamp": {step}}}' for user in range(20) for step in range(6)]
    (tmp_path / "data" / "interactions.jsonl").write_text("\n".join(lines) + "\n")
    out = tmp_path / "a.neighbours.safetensors"
    refused = build(tmp_path, out, "--kind", "knn")
    assert refused.exit_code == 1
    assert "20 of 20 validation labels are items that their users had met before" in refused.output.replace("\n", " ")
    done = build(tmp_path, out, "--kind", "knn", "--keep-seen")
    assert done.exit_code == 0, done.output
    assert "seen items kept" in done.output
    assert {line.split("│")[3].strip() for line in done.output.splitlines() if line.startswith("│ knn")} == {"1.0000"}


def test_a_prepared_directory_is_split_as_it_was_prepared_for(tmp_path: Path) -> None:
    """Items follow each other in time, so that a split by time holds other items out than each user's last ones."""
    catalog = random_catalog(items=ITEMS, depth=2, codes=7)
    catalog_of([(str(index), catalog.identifier(index)) for index in range(ITEMS)]).save(tmp_path / "catalog.jsonl")
    (tmp_path / "data").mkdir()
    lines = [
        f'{{"user": {user}, "item": {(user + step) % ITEMS}, "timestamp": {100 * user + step}}}' for user in range(20) for step in range(5)
    ]
    (tmp_path / "data" / "interactions.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "data" / "prepare.json").write_text('{"split": "global-time"}')
    done = build(tmp_path, tmp_path / "a.neighbours.safetensors", "--kind", "knn")
    assert done.exit_code == 1, "by time, no user has validation items and a history before them"
    assert "no user has valid items and a history before them" in done.output.replace("\n", " ")
    assert (
        build(tmp_path, tmp_path / "a.neighbours.safetensors", "--kind", "knn", "--split", "leave-one-out", "--min-items", "2").exit_code
        == 0
    )
    source = NeighbourModel.load(tmp_path / "a.neighbours.safetensors").source
    assert source == source_of(tmp_path / "data", SplitRule("leave-one-out", 2))
