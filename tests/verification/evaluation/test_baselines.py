"""Baselines: their scores by loops, and that they are chosen on the validation part and learn from all that is known."""

import weakref
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from scipy.sparse import csr_array

import drafting.neighbours.knn
import verification.evaluation.baselines.closed_forms as closed_forms
import verification.evaluation.baselines.task as task
from drafting.alignment.data.interactions import Interactions, Split
from drafting.array_types import FloatArray
from drafting.neighbours.build import ease, neighbour_model
from drafting.trie.arrays import offsets_of
from verification.evaluation.baselines.baselines import baseline_lists, baseline_rows
from verification.evaluation.baselines.closed_forms import best_of, decayed_histories, neighbour_scores, try_settings
from verification.evaluation.baselines.ranking import quality_of, ranked_lists
from verification.evaluation.baselines.task import BaselineTask
from verification.evaluation.metrics import ndcg, recall
from verification.evaluation.settings import BASELINES, CLOSED_FORMS
from verification.evaluation.users import HeldOut, held_out

ITEMS, USERS = 30, 40


def random_split(seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)

    def some(least: int, most: int) -> Interactions:
        lengths = rng.integers(least, most, size=USERS)
        return Interactions(tuple(map(str, range(USERS))), offsets_of(lengths), rng.integers(ITEMS, size=lengths.sum()).astype(np.int32))

    return Split(some(0, 9), some(0, 2), some(0, 3))


@pytest.fixture(scope="module")
def users() -> HeldOut:
    return held_out(random_split())


@pytest.mark.parametrize("keep_seen", [False, True])
@pytest.mark.parametrize("k", [1, 5, ITEMS, 99])
def test_lists_are_the_best_items_that_were_not_seen(users: HeldOut, k: int, keep_seen: bool) -> None:
    # Few different scores, so that many are equal.
    table = np.random.default_rng(k).integers(-2, 3, (len(users), ITEMS)).astype(np.float32)
    found = ranked_lists(users, lambda rows: table[rows.start : rows.stop].copy(), k, keep_seen=keep_seen)
    for user, (scores, history) in enumerate(zip(table.tolist(), users.histories, strict=True)):
        left = [item for item in range(ITEMS) if keep_seen or item not in history]
        assert found[user] == sorted(left, key=lambda item: (-scores[item], item))[:k]


@pytest.mark.parametrize(("decay", "window"), [(0.5, 3), (1.0, 99), (0.9, 1)])
def test_a_neighbour_models_scores_are_those_that_it_serves(users: HeldOut, decay: float, window: int) -> None:
    weights = ease(users.known, ITEMS, 5.0)
    model = neighbour_model(weights, map(str, range(ITEMS)), kind="ease", decay=decay, window=window, kept=4)
    cut = csr_array((model.weights, model.neighbours, model.indptr), shape=(ITEMS, ITEMS))
    scores = neighbour_scores(users, cut, decay, window)(range(len(users)))
    rows = decayed_histories(users, ITEMS, decay, window).toarray()
    for user, history in enumerate(users.histories):
        loop = np.zeros(ITEMS)
        for age, item in enumerate(reversed(history[-window:])):
            loop[item] += decay**age
        np.testing.assert_allclose(rows[user], loop, rtol=1e-6)
        items, expected = model.scores(np.array(history))
        np.testing.assert_allclose(scores[user][items], expected, rtol=1e-5)
        assert np.count_nonzero(scores[user]) == len(items)


def test_a_standard_error_is_that_of_the_mean(users: HeldOut) -> None:
    lists = ranked_lists(users, lambda rows: np.ones((len(rows), ITEMS), np.float32), 10)
    quality = quality_of(users, lists, 10)
    for values, mean, error in (
        (recall(lists, users.labels, 10), quality.recall, quality.recall_error),
        (ndcg(lists, users.labels, 10), quality.ndcg, quality.ndcg_error),
    ):
        assert mean == pytest.approx(np.mean(values))
        assert error == pytest.approx(np.std(values, ddof=1) / sqrt(len(values)))
        assert error > 0


def chains(users: int = 60) -> Split:
    """Everyone meets items in a circle, each from another one on: what follows is the next item, which popularity can't know."""
    rows = [[(user + step) % ITEMS for step in range(6)] for user in range(users)]

    def part(first: int, last: int) -> Interactions:
        items = np.array([row[first:last] for row in rows], np.int32)
        return Interactions(tuple(map(str, range(users))), offsets_of([last - first] * users), items.reshape(-1))

    return Split(part(0, 4), part(4, 5), part(5, 6))


def test_neighbours_find_what_follows() -> None:
    split = chains()
    users = held_out(split)
    found = {each.name: each for each in baseline_lists(CLOSED_FORMS, BaselineTask(split, users, ITEMS), 1)}
    assert list(found) == [BASELINES[name] for name in CLOSED_FORMS]
    hits = {name: float(recall(each.lists, users.labels, 1).mean()) for name, each in found.items()}
    assert hits["most popular"] < 0.5
    assert hits["item-kNN"] == hits["EASE"] == 1.0
    assert hits["co-occurrence"] < 1.0, "what came before the oldest item is as near as what follows the newest"
    assert found["item-kNN"].chosen.startswith("shrink ")
    assert ", decay " in found["EASE"].chosen


def test_settings_are_chosen_without_a_look_at_the_test_part() -> None:
    split = random_split(1)
    other = replace(split, test=random_split(2).test)
    chosen = [[each.chosen for each in baseline_lists(("knn",), BaselineTask(one, held_out(one), ITEMS), 5)] for one in (split, other)]
    assert chosen[0] == chosen[1]
    tried = list(try_settings(held_out(split, "valid"), ITEMS, "knn"))
    assert chosen[0] == [str(best_of(tried).settings)]
    assert max(each.quality.recall + each.quality.ndcg for each in tried) == best_of(tried).quality.recall + best_of(tried).quality.ndcg


def test_no_more_validation_users_choose_than_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    split = random_split(1)
    users, every = held_out(split), len(held_out(split, "valid"))
    for most in (5, every, every + 1):
        monkeypatch.setattr(task, "CHOOSING_USERS", most)
        choosing = BaselineTask(split, users, ITEMS).validation
        assert choosing is not None
        assert len(choosing) == min(most, every)
        np.testing.assert_array_equal(choosing.windows.owners, held_out(split, "valid", most).windows.owners)


def repeats() -> Split:
    """Everyone has met the items of a circle, and meets one of them again, or another one: the newest, in four of five cases."""
    rng = np.random.default_rng(3)

    def part(*columns: list[int]) -> Interactions:
        items = np.array(columns, np.int32).T
        return Interactions(tuple(map(str, range(60))), offsets_of([items.shape[1]] * 60), items.reshape(-1))

    rows = [[(user + step) % ITEMS for step in range(6)] for user in range(60)]
    later = [[row[-1] if rng.random() < 0.8 else int(rng.integers(ITEMS)) for _ in range(2)] for row in rows]
    known = [list(column) for column in zip(*rows, strict=True)]
    return Split(part(*known), part([pair[0] for pair in later]), part([pair[1] for pair in later]))


@pytest.mark.parametrize("kind", ["knn", "ease"])
def test_settings_are_chosen_by_lists_of_the_kind_that_is_compared(kind: str) -> None:
    split, chosen = repeats(), {}
    users, validation = held_out(split), held_out(split, "valid")
    for keep_seen in (False, True):
        tried = list(try_settings(validation, ITEMS, kind, keep_seen=keep_seen))
        for each in tried:
            scores = neighbour_scores(validation, each.settings.weights(validation.known, ITEMS), each.settings.decay, each.settings.window)
            assert each.quality == quality_of(validation, ranked_lists(validation, scores, 10, keep_seen=keep_seen), 10)
        (found,) = baseline_lists((kind,), BaselineTask(split, users, ITEMS, keep_seen=keep_seen), 10)
        chosen[keep_seen] = found.chosen
        assert found.chosen == str(best_of(tried).settings)
    assert chosen[False] != chosen[True]


def test_candidates_are_judged_at_their_own_length() -> None:
    users = held_out(random_split(1), "valid")
    for each in try_settings(users, ITEMS, "knn", kept=9, decays=(0.5, 0.9), at=3):
        weights = each.settings.weights(users.known, ITEMS, kept=9)
        lists = ranked_lists(users, neighbour_scores(users, weights, each.settings.decay, each.settings.window), 3)
        assert each.quality == quality_of(users, lists, 3)


def test_without_validation_users_the_first_settings_are_taken() -> None:
    split = random_split()
    empty = split.valid.where(np.zeros(len(split.valid), np.bool_))
    one = Split(split.train, empty, split.test)
    (found,) = baseline_lists(("ease",), BaselineTask(one, held_out(one), ITEMS), 5)
    assert found.chosen == "l2 300, decay 0.5, by default"


def test_the_last_dense_matrix_is_gone_when_the_next_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory that is checked is that of one."""
    made: list[weakref.ref[FloatArray]] = []

    def watched(known: Interactions, items: int, l2: float) -> FloatArray:
        assert all(each() is None for each in made)
        weights = ease(known, items, l2)
        made.append(weakref.ref(weights))
        return weights

    monkeypatch.setattr(closed_forms, "ease", watched)
    split = random_split()
    list(baseline_lists(("ease", "ease"), BaselineTask(split, held_out(split), ITEMS), 5))
    assert len(made) == 2 * (3 + 1)
    for _ in try_settings(held_out(split, "valid"), ITEMS, "ease", kept=3):
        assert made[-1]() is None, "what is cut is not held beside what is kept"


def test_a_baseline_that_has_no_room_is_left_out_and_the_others_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting.neighbours.knn, "MOST_PAIRS", 1)
    split = random_split()
    asked = ("knn", "popular", "co-occurrence", "ease"), BaselineTask(split, held_out(split), ITEMS), (3, 5)
    rows, left_out = baseline_rows(*asked)
    assert [(row.name, row.k) for row in rows] == [("most popular", 3), ("most popular", 5), ("EASE", 3), ("EASE", 5)]
    assert left_out["item-kNN"].startswith("Item-kNN would count")
    monkeypatch.setattr(drafting.neighbours.build, "MOST_EASE_ITEMS", ITEMS - 1)
    rows, left_out = baseline_rows(*asked)
    assert {row.name for row in rows} == {"most popular"}
    assert left_out["EASE"].startswith(f"EASE would invert a matrix of {ITEMS} x {ITEMS} items")


def test_a_knn_that_has_no_room_for_all_neighbours_keeps_what_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    split = random_split(1)
    users, validation = held_out(split), held_out(split, "valid")
    monkeypatch.setattr(drafting.neighbours.knn, "free_memory", lambda: 3 * 30 * 16 * ITEMS // 2)
    monkeypatch.setattr(drafting.neighbours.knn, "NEIGHBOURS", 5)
    asked = ("knn", "co-occurrence"), BaselineTask(split, users, ITEMS), 5
    found, beside = baseline_lists(*asked)
    best = best_of(list(try_settings(validation, ITEMS, "knn", 12)))
    assert found.chosen == f"{best.settings}, 12 neighbours an item for want of memory"
    weights = best.settings.weights(users.known, ITEMS, 12)
    assert found.lists == ranked_lists(users, neighbour_scores(users, weights, best.settings.decay, best.settings.window), 5)
    assert beside.chosen == "", "one matrix has room"
    monkeypatch.setattr(drafting.neighbours.knn, "NEIGHBOURS", 16)
    refused, beside = baseline_lists(*asked)
    assert refused.reason.endswith("free): use a machine with more memory.")
    assert beside.chosen == "", "one matrix has room"


def test_every_step_is_told() -> None:
    split, said = random_split(), []
    list(baseline_lists(("popular", "knn"), BaselineTask(split, held_out(split), ITEMS, on_step=said.append), 5))
    assert said[:2] == ["most popular", "item-kNN"]
    assert len(said) == 2 + 12


def constant(rows: range) -> FloatArray:
    return np.zeros((len(rows), ITEMS), np.float32)


def test_lists_without_scores_stand_in_the_order_of_the_catalog(users: HeldOut) -> None:
    assert ranked_lists(users, constant, 3, keep_seen=True) == [[0, 1, 2]] * len(users)
