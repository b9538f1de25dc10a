"""The neighbour model against a dense product, and files that are damaged."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from drafting.array_types import DoubleArray, IntArray
from drafting.catalog.text_column import TextColumn
from drafting.neighbours.model import NeighbourError, NeighbourModel, best
from drafting.neighbours.source import Source
from drafting.trie.arrays import offsets_of

SOURCE = Source("0123456789abcdef", "global-time", 3, "buy")


def model_of(dense: DoubleArray, decay: float = 0.5, window: int = 3, kind: str = "ease") -> NeighbourModel:
    """The model of a dense matrix `[items, items]`; what is not positive has no weight."""
    rows, columns = np.nonzero(dense > 0)
    return NeighbourModel(
        TextColumn.of(f"item {i} é" for i in range(len(dense))),
        offsets_of(np.bincount(rows, minlength=len(dense))),
        columns.astype(np.int32),
        dense[rows, columns].astype(np.float32),
        decay,
        window,
        kind,
    )


def random_model(items: int, share: float = 0.3, seed: int = 0, **settings: Any) -> tuple[NeighbourModel, DoubleArray]:
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((items, items)) < share, rng.random((items, items)).astype(np.float32), 0).astype(np.float64)
    return model_of(dense, **settings), dense


def by_product(dense: DoubleArray, history: IntArray, decay: float, window: int) -> DoubleArray:
    """The scores of all items, as a sum of decayed rows."""
    total = np.zeros(len(dense))
    for age, item in enumerate(reversed(history[-window:].tolist())):
        total += dense[item] * decay**age
    return total


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    items=st.sampled_from([1, 7, 60, 900]),
    share=st.sampled_from([0.0, 0.002, 0.3]),
    length=st.integers(0, 12),
    decay=st.sampled_from([0.2, 0.9, 1.0]),
    window=st.integers(1, 9),
)
def test_scores_are_the_sum_of_decayed_rows(seed: int, items: int, share: float, length: int, decay: float, window: int) -> None:
    model, dense = random_model(items, share, seed, decay=decay, window=window)
    history = np.random.default_rng(seed + 1).integers(items, size=length)
    expected = by_product(dense, history, decay, window)
    found, scores = model.scores(history)
    assert found.tolist() == np.flatnonzero(expected).tolist()
    np.testing.assert_allclose(scores, expected[found], rtol=1e-12)
    order = sorted(found.tolist(), key=lambda item: (-scores[found.tolist().index(item)], item))
    for count in (0, 1, 3, items):
        items_, scores_ = best(found, scores, count)
        assert items_.tolist() == order[:count]
        assert scores_.tolist() == [scores[found.tolist().index(item)] for item in order[:count]]


def test_the_best_items_of_equal_scores_are_the_first_ones() -> None:
    dense = np.zeros((6, 6))
    dense[0] = [0, 1, 2, 1, 1, 1]
    items, scores = best(*model_of(dense).scores(np.array([0])), 3)
    assert (items.tolist(), scores.tolist()) == ([2, 1, 3], [2, 1, 1])


def test_a_weight_that_decays_to_nothing_makes_no_candidate() -> None:
    """0.5 to the power of 2,000 is no number above zero."""
    dense = np.zeros((200, 200))
    dense[1, 2] = dense[0, 3] = 1
    model = model_of(dense, window=9_999)
    assert model.scores(np.array([1] + [5] * 2_000 + [0]))[0].tolist() == [3]
    assert model.scores(np.array([1] + [5] * 2_000))[0].tolist() == []


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    model = replace(random_model(50, decay=0.7, window=17, kind="knn")[0], fit="train", source=SOURCE)
    path = tmp_path / "some.neighbours.safetensors"
    model.save(path)
    loaded = NeighbourModel.load(path)
    assert (list(loaded.item_ids), loaded.decay, loaded.window, loaded.kind, loaded.fit) == (list(model.item_ids), 0.7, 17, "knn", "train")
    assert loaded.source == SOURCE
    for name in ("indptr", "neighbours", "weights"):
        np.testing.assert_array_equal(vars(loaded)[name], vars(model)[name])
        np.testing.assert_array_equal(load_file(path)[name], vars(model)[name])
    assert not loaded.weights.flags.owndata, "mapped, not read"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda model: {"indptr": model.indptr[:-1]}, "indptr must be 51 offsets"),
        (lambda model: {"indptr": model.indptr + 1}, "begin with 0"),
        (lambda model: {"indptr": np.concatenate([model.indptr[:3], model.indptr[2:3] - 1, model.indptr[4:]])}, "never descend"),
        (lambda model: {"indptr": model.indptr.astype(np.int32)}, "must be int64"),
        (lambda model: {"weights": model.weights[:-1]}, "entries each"),
        (lambda model: {"neighbours": np.where(model.neighbours == 49, 50, model.neighbours).astype(np.int32)}, "from 0 up to 49"),
        (lambda model: {"neighbours": np.where(model.neighbours == 0, -1, model.neighbours).astype(np.int32)}, "from 0 up to 49"),
        (lambda model: {"neighbours": model.neighbours[::-1]}, "must ascend"),
        (lambda model: {"weights": -model.weights}, "positive and finite"),
        (lambda model: {"weights": np.where(model.weights > 0.5, np.float32(np.nan), model.weights)}, "positive and finite"),
        (lambda model: {"weights": np.where(model.weights > 0.5, np.float32(np.inf), model.weights)}, "positive and finite"),
        (lambda model: {"decay": 0.0}, "decay must be above 0"),
        (lambda model: {"decay": float("nan")}, "decay must be above 0"),
        (lambda model: {"window": 0}, "window at least 1"),
        (lambda model: {"kind": "guess"}, "kind must be one of ease, knn"),
        (lambda model: {"fit": "test"}, "fit must be one of train,"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(change: Callable[[NeighbourModel], dict[str, Any]], sentence: str) -> None:
    model, _ = random_model(50)
    with pytest.raises(ValueError, match=sentence):
        replace(model, **change(model))


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, keep: int) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(NeighbourError, match="is no neighbour model, or is cut off: build it anew with"):
        NeighbourModel.load(path)


def test_every_changed_array_is_found_out(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    for place in np.linspace(8 + length, len(whole) - 1, 40, dtype=int).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(NeighbourError, match=r"is damaged|is no neighbour model"):
            NeighbourModel.load(path)


def test_what_is_something_else_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NeighbourError, match="cannot be read: No such file"):
        NeighbourModel.load(tmp_path / "none")
    with pytest.raises(NeighbourError, match="not a regular file"):
        NeighbourModel.load(tmp_path)
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"atspeed-neighbours-1", b"atspeed-neighbours-9"))
    with pytest.raises(NeighbourError, match="no neighbour model of this version"):
        NeighbourModel.load(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        random_model(9)[0].save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def saved(folder: Path) -> Path:
    path = folder / "some.neighbours.safetensors"
    random_model(50)[0].save(path)
    return path
