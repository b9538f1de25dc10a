"""Users, metrics and baselines: by hand."""

from math import log2

import numpy as np
import pytest

from drafting.alignment.data.interactions import Split
from drafting.errors import InteractionError
from drafting.neighbours.knn import knn
from drafting.prompts.user_state import STORED_EVENTS
from tests.interactions import interactions
from verification.evaluation.baselines.closed_forms import co_occurring, most_popular
from verification.evaluation.baselines.ranking import ranked_lists
from verification.evaluation.metrics import ndcg, recall
from verification.evaluation.users import held_out

SPLIT = Split(
    train=interactions([0, 1], [1, 2], [], [0, 1, 2]),
    valid=interactions([2], [], [3], [3]),
    test=interactions([5, 3, 5], [], [1], [9]),
)


def test_test_users_are_asked_with_all_that_came_before() -> None:
    users = held_out(SPLIT)
    assert users.histories == [[0, 1, 2], [3], [0, 1, 2, 3]]
    assert users.labels == [[3, 5], [1], [9]]
    assert users.warm.tolist() == [True, True, False]


def test_validation_users_know_nothing_of_their_validation_items() -> None:
    users = held_out(SPLIT, "valid")
    assert users.histories == [[0, 1], [0, 1, 2]]
    assert users.labels == [[2], [3]]
    assert users.warm.tolist() == [True, False]
    assert len(users.known) == len(SPLIT.train)


def test_users_are_asked_with_what_a_store_keeps() -> None:
    users = held_out(Split(interactions([7, *[0] * STORED_EVENTS], [1]), interactions([], []), interactions([2], [3])))
    assert [len(user.events) for user in users.states()] == [STORED_EVENTS, 1]
    assert users.histories == [[0] * STORED_EVENTS, [1]]


def test_fewer_users_are_spread_evenly() -> None:
    assert held_out(SPLIT, most=2).labels == [[3, 5], [9]]
    assert held_out(SPLIT).spread(2) == [0, 2]
    assert held_out(SPLIT).spread(9) == [0, 1, 2]


def test_labels_are_warm_that_somebody_has_met() -> None:
    rng = np.random.default_rng(0)
    train, valid = (interactions(*[rng.integers(most, size=rng.integers(1, 4)).tolist() for _ in range(50)]) for most in (20, 40))
    split = Split(train, valid, interactions(*[[]] * 50))
    users = held_out(split, "valid")
    met = set(train.items.tolist())
    assert users.warm.tolist() == [bool(met.intersection(labels)) for labels in users.labels]
    assert 0 < users.warm.sum() < len(users)


def test_nobody_to_evaluate_is_said() -> None:
    with pytest.raises(InteractionError, match="no user has test items and a history before them"):
        held_out(Split(SPLIT.train, SPLIT.valid, interactions([], [], [], [])))


def test_recall_by_hand() -> None:
    lists, labels = [[1, 2, 3, 4], [5, 6, 7, 8]], [[2, 9], [8]]
    assert recall(lists, labels, 4).tolist() == [0.5, 1.0]
    assert recall(lists, labels, 3).tolist() == [0.5, 0.0]


def test_ndcg_by_hand() -> None:
    lists, labels = [[1, 2, 3, 4], [5, 6, 7, 8], [9]], [[2, 4], [5], [7]]
    both = 1 / log2(3) + 1 / log2(5)
    assert ndcg(lists, labels, 4) == pytest.approx([both / (1 + 1 / log2(3)), 1.0, 0.0])
    assert ndcg(lists, labels, 1) == pytest.approx([0.0, 1.0, 0.0])


def test_the_most_popular_items_are_everyones_list() -> None:
    # Counts in train and validation: item 0 twice, 1 and 2 three times, 3 twice.
    users = held_out(SPLIT)
    assert ranked_lists(users, most_popular(users, 10), 3, keep_seen=True) == [[1, 2, 0]] * 3
    assert ranked_lists(users, most_popular(users, 10), 3) == [[3, 4, 5], [1, 2, 0], [4, 5, 6]], "seen items left out, equal ones in order"


def test_similarity_is_the_cosine_of_who_met_what() -> None:
    known = interactions([0, 1], [1, 2], [0, 1, 1])
    found = knn(known, 4, (0.0,))[0].toarray()
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 0] = 2 / np.sqrt(2 * 3)
    expected[1, 2] = expected[2, 1] = 1 / np.sqrt(3 * 1)
    np.testing.assert_allclose(found, expected)


def test_what_is_met_together_is_recommended() -> None:
    split = Split(interactions([0, 1], [0, 1], [2, 3], [0]), interactions([], [], [], []), interactions([], [], [], [1]))
    users = held_out(split)
    assert ranked_lists(users, co_occurring(users, 4), 1) == [[1]]
