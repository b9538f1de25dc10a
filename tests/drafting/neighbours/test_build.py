"""Closed forms against the problems that they solve, solved item by item."""

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array

import drafting.neighbours.build as build
import drafting.neighbours.knn
from drafting.alignment.data.interactions import Interactions
from drafting.array_types import DoubleArray
from drafting.neighbours.build import ease, ease_bytes, ease_refusal, neighbour_model, user_item_matrix
from drafting.neighbours.knn import NoRoomError, knn, most_kept
from drafting.neighbours.model import NeighbourError
from drafting.trie.arrays import offsets_of

ITEMS = 23


def random_histories(users: int = 40, items: int = ITEMS, seed: int = 0) -> Interactions:
    """Users with up to nine items, some of them twice; the last item is never met."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 10, users)
    return Interactions(tuple(map(str, range(users))), offsets_of(lengths), rng.integers(items - 1, size=lengths.sum()).astype(np.int32))


def met_by_loop(known: Interactions, items: int = ITEMS) -> DoubleArray:
    met = np.zeros((len(known.users), items))
    for user in range(len(known.users)):
        met[user, known.history(user)] = 1
    return met


def test_a_user_has_met_an_item_once() -> None:
    known = random_histories()
    np.testing.assert_array_equal(user_item_matrix(known, ITEMS).toarray(), met_by_loop(known))


@pytest.mark.parametrize("shrink", [0.0, 2.5])
@pytest.mark.parametrize("pairs", [1 << 22, 30])
def test_knn_is_the_shrunk_cosine_of_each_pair(shrink: float, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting.neighbours.knn, "_PAIRS_AT_A_TIME", pairs)
    known = random_histories()
    met, found = met_by_loop(known), knn(known, ITEMS, (9.0, shrink))[1].toarray()
    for one in range(ITEMS):
        for other in range(ITEMS):
            common = float(met[:, one] @ met[:, other])
            scale = (met[:, one].sum() * met[:, other].sum()) ** 0.5 + shrink
            assert found[one, other] == pytest.approx(common / scale if common and one != other else 0.0, rel=1e-6)


@pytest.mark.parametrize("kept", [1, 3, 99])
def test_knn_keeps_the_largest_of_each_row(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal ones, of which there are many, by index."""
    monkeypatch.setattr(drafting.neighbours.knn, "_PAIRS_AT_A_TIME", 30)
    known = random_histories()
    for every, cut in zip(knn(known, ITEMS, (0.0, 5.0)), knn(known, ITEMS, (0.0, 5.0), kept), strict=True):
        for row, found in zip(every.toarray(), cut.toarray(), strict=True):
            best = sorted(np.flatnonzero(row).tolist(), key=lambda item: (-row[item], item))[:kept]
            assert found.tolist() == [value if item in best else 0 for item, value in enumerate(row.tolist())]


def test_knn_of_many_items_holds_what_is_kept_and_not_every_pair() -> None:
    """Users with 600 of 60,000 items each: 14 million pairs, which would take 110 MB and several copies."""
    rng = np.random.default_rng(0)
    known = Interactions(tuple(map(str, range(40))), offsets_of([600] * 40), rng.integers(60_000, size=24_000).astype(np.int32))
    tracemalloc.start()
    (found,) = knn(known, 60_000, (0.0,), 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.nnz == 5 * np.unique(known.items).size
    assert peak < 1.1 * drafting.neighbours.knn._PAIRS_AT_A_TIME * 64


def test_knn_that_has_no_room_or_takes_hours_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    known = random_histories()
    counted = int((np.diff(user_item_matrix(known, ITEMS).indptr) ** 2).sum())
    monkeypatch.setattr(drafting.neighbours.knn, "MOST_PAIRS", counted)
    knn(known, ITEMS, (0.0,))
    monkeypatch.setattr(drafting.neighbours.knn, "free_memory", lambda: ITEMS * 16)
    knn(known, ITEMS, (0.0,), 1)
    for shrinks, kept in (((0.0, 1.0), 1), ((0.0,), None)):
        with pytest.raises(NoRoomError, match=r"GiB are free\): use a machine with more memory\.$"):
            knn(known, ITEMS, shrinks, kept)
    monkeypatch.setattr(drafting.neighbours.knn, "MOST_PAIRS", counted - 1)
    with pytest.raises(NeighbourError, match=f"would count {counted:,} pairs of items"):
        knn(known, ITEMS, (0.0,), 1)


@pytest.mark.parametrize(
    ("room", "matrices", "kept"),
    [(199, 1, "refused"), (250, 1, 200), (250, 3, "refused"), (450, 1, 360), (450, 3, "refused"), (700, 3, 200), (900, 1, None)],
)
def test_as_many_neighbours_are_kept_as_there_is_room_for(
    room: int, matrices: int, kept: int | str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One user has met 900 items, so each has all as its neighbours."""
    known = Interactions(("user",), offsets_of([900]), np.arange(900, dtype=np.int32))
    monkeypatch.setattr(drafting.neighbours.knn, "free_memory", lambda: room * 900 * 16)
    if kept == "refused":
        with pytest.raises(NoRoomError, match=f"would keep up to {200 * 900 * matrices:,} neighbours"):
            most_kept(known, 900, matrices)
    else:
        assert most_kept(known, 900, matrices) == kept


def test_ease_is_refused_by_what_the_container_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "free_memory", lambda: ease_bytes(100) + 1)
    assert ease_refusal(100) is None
    assert ease_refusal(101) is not None


@pytest.mark.parametrize("l2", [0.5, 30.0])
@pytest.mark.parametrize("rows", [1024, 7])
def test_ease_is_the_ridge_regression_of_each_item_on_the_others(l2: float, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_ROWS_AT_A_TIME", rows)
    known = random_histories()
    met, weights = met_by_loop(known), ease(known, ITEMS, l2)
    for item in range(ITEMS):
        others = np.delete(met, item, axis=1)
        solved = np.linalg.solve(others.T @ others + l2 * np.eye(ITEMS - 1), others.T @ met[:, item])
        np.testing.assert_allclose(np.delete(weights[:, item], item), solved, atol=1e-5)
    assert not weights.diagonal().any()


def test_ease_that_cannot_be_computed_is_a_sentence() -> None:
    for l2 in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(NeighbourError, match="must be above 0"):
            ease(random_histories(), ITEMS, l2)
    with pytest.raises(NeighbourError, match="out of reach for 100,000 of them: choose kNN"):
        ease(random_histories(), 100_000, 1.0)
    # Two items that always come together, in single precision.
    twins = Interactions(tuple(map(str, range(50_000))), offsets_of([2] * 50_000), np.array([0, 1] * 50_000, np.int32))
    with pytest.raises(NeighbourError, match="raise l2"):
        ease(twins, 2, 1e-12)
    assert ease_bytes(17_332) == pytest.approx(1.2e9, rel=0.2)


@pytest.mark.parametrize("kept", [1, 4, 23, 99])
@pytest.mark.parametrize("rows", [1024, 5])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_model_keeps_the_largest_positive_weights(kept: int, rows: int, sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_ROWS_AT_A_TIME", rows)
    rng = np.random.default_rng(kept)
    # Few different values, so that many are equal, and a row and more without any that is positive.
    weights = rng.integers(-3, 3, (ITEMS, ITEMS)).astype(np.float32) * (rng.random(ITEMS) < 0.9)[:, None]
    model = neighbour_model(csr_array(weights) if sparse else weights, map(str, range(ITEMS)), kind="ease", decay=0.5, window=2, kept=kept)
    for item in range(ITEMS):
        mine = slice(int(model.indptr[item]), int(model.indptr[item + 1]))
        best = sorted((other for other in range(ITEMS) if weights[item, other] > 0), key=lambda other: (-weights[item, other], other))
        assert model.neighbours[mine].tolist() == sorted(best[:kept])
        assert model.weights[mine].tolist() == weights[item, sorted(best[:kept])].tolist()
    assert list(model.item_ids) == [str(item) for item in range(ITEMS)]


def test_users_with_one_item_each_make_no_model() -> None:
    alone = Interactions(("a", "b"), offsets_of([1, 1]), np.array([0, 1], np.int32))
    with pytest.raises(NeighbourError, match="no user has met two"):
        neighbour_model(knn(alone, 3, (0.0,))[0], "abc", kind="knn", decay=0.5, window=2)


def test_what_follows_from_a_pair_is_the_pair() -> None:
    """Whoever meets 0 meets 1; 2 is met alone."""
    pairs = Interactions(("a", "b", "c"), offsets_of([2, 2, 1]), np.array([0, 1, 1, 0, 2], np.int32))
    for kind, weights in (("knn", knn(pairs, 3, (0.0,))[0]), ("ease", ease(pairs, 3, 0.5))):
        items, _ = neighbour_model(weights, "abc", kind=kind, decay=0.5, window=2).scores(np.array([0]))
        assert items.tolist() == [1]
