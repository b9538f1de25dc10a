"""The neural baselines: what they see, what they learn from, and that they learn."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import verification.evaluation.baselines.neural as neural
import verification.evaluation.baselines.training as training
from drafting.alignment.data.interactions import Interactions, Split
from drafting.trie.arrays import offsets_of
from verification.evaluation.baselines.baselines import baseline_lists, baseline_rows
from verification.evaluation.baselines.networks import LENGTH, NETWORKS, SequenceNetwork
from verification.evaluation.baselines.neural import scores_of
from verification.evaluation.baselines.ranking import quality_of, ranked_lists
from verification.evaluation.baselines.task import BaselineTask
from verification.evaluation.baselines.training import Lesson, Training, batches, forget_networks, training_rows
from verification.evaluation.metrics import recall
from verification.evaluation.users import HeldOut, held_out

ITEMS = 12


def circles(users: int = 36, known: int = 4) -> Split:
    """Everyone walks through the items in a circle: what follows is the next one."""
    rows = np.array([[(user + step) % ITEMS for step in range(known + 2)] for user in range(users)], np.int32)

    def part(first: int, last: int) -> Interactions:
        return Interactions(tuple(map(str, range(users))), offsets_of([last - first] * users), rows[:, first:last].reshape(-1))

    return Split(part(0, known), part(known, known + 1), part(known + 1, known + 2))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_position_sees_what_is_before_it_alone(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](ITEMS, 0.5).eval()
    rows = torch.randint(ITEMS, (3, 9))
    whole = network(rows)
    later = rows.clone()
    later[:, 5:] = ITEMS
    torch.testing.assert_close(network(later)[:, :5], whole[:, :5])
    torch.testing.assert_close(network(rows[:, :5]), whole[:, :5])
    assert (network(rows.flip(0))[:, -1] - whole[:, -1]).abs().max() > 1e-3


def test_every_item_but_a_users_first_is_predicted_once() -> None:
    rng = np.random.default_rng(0)
    lengths = np.array([0, 1, 2, LENGTH, LENGTH + 1, LENGTH + 2, 3 * LENGTH + 7])
    known = Interactions(tuple(map(str, range(len(lengths)))), offsets_of(lengths), rng.integers(90, size=lengths.sum()).astype(np.int32))
    rows, labels = (each.numpy() for each in training_rows(known, 90))
    np.testing.assert_array_equal(labels[:, 1:], rows[:, 1:] != 90)
    assert not labels[:, 0].any()
    assert rows.shape[1] == LENGTH + 1
    pairs = Counter((before, after) for row in rows.tolist() for before, after in pairwise(row) if after != 90)
    histories = [known.history(user).tolist() for user in range(len(lengths))]
    assert pairs == Counter((before, after) for row in histories for before, after in pairwise(row))


def buyers(users: int = 36) -> Split:
    """Everyone views the items of a circle, one after the other, and buys an item of another circle now and then: its place tells which."""
    viewed, half = ITEMS // 2, ITEMS // 2

    def row(user: int) -> list[int]:
        return [half + (user + step // 2) % half if step % 3 == 2 else (user + step) % viewed for step in range(9)]

    rows = np.array([row(user) for user in range(users)], np.int32)

    def part(first: int, last: int) -> Interactions:
        items = rows[:, first:last].reshape(-1)
        return Interactions(tuple(map(str, range(users))), offsets_of([last - first] * users), items, labelled=items >= half)

    return Split(part(0, 3), part(3, 6), part(6, 9))


def test_only_what_is_to_be_predicted_is_predicted() -> None:
    known = held_out(buyers()).known
    rows, labels = training_rows(known, ITEMS)
    torch.testing.assert_close(labels, (rows >= ITEMS // 2) & (rows < ITEMS))
    # A piece without any would have no loss.
    views = np.zeros(3 * LENGTH, np.bool_)
    views[-1] = True
    known = Interactions(("one",), np.array([0, len(views)]), np.arange(len(views), dtype=np.int32) % ITEMS, labelled=views)
    rows, labels = training_rows(known, ITEMS)
    assert len(rows) == 1
    assert labels.nonzero().tolist() == [[0, LENGTH]]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_lists_what_is_bought_and_not_what_is_viewed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural, "DROPOUTS", (0.1,))
    monkeypatch.setattr(neural, "MOST_EPOCHS", 6)
    monkeypatch.setattr(training, "BATCH", 12)
    monkeypatch.setattr(training, "LEARNING_RATE", 1e-2)
    split = buyers()
    users = held_out(split)
    found = {each.name: each for each in baseline_lists(("popular", name), BaselineTask(split, users, ITEMS, keep_seen=True), 3)}
    for each in found.values():
        assert min(item for row in each.lists for item in row) >= ITEMS // 2


def test_what_is_to_be_predicted_is_part_of_a_lesson() -> None:
    known = held_out(buyers()).known
    everything = np.ones(len(known), np.bool_)
    digests = [Lesson("gru4rec", replace(known, labelled=each), ITEMS, 0.1, 0).digest for each in (None, everything, known.labels)]
    assert digests[0] == digests[1] != digests[2]


def test_networks_that_have_nothing_to_learn_are_left_out() -> None:
    split = circles(known=1)
    alone = replace(split, valid=split.valid.where(np.zeros(len(split.valid), np.bool_)))
    for part in (split, alone):
        rows, left_out = baseline_rows(("gru4rec", "popular"), BaselineTask(part, held_out(part), ITEMS), [3])
        assert {row.name for row in rows} == {"most popular"}
        assert left_out == {"GRU4Rec": "No user has an item to predict with another one before it, so a network has nothing to learn from."}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_learns_what_follows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural, "DROPOUTS", (0.1,))
    monkeypatch.setattr(neural, "MOST_EPOCHS", 20)
    monkeypatch.setattr(neural, "PATIENCE", 20)
    monkeypatch.setattr(training, "BATCH", 12)
    monkeypatch.setattr(training, "LEARNING_RATE", 1e-2)
    split, said = circles(), []
    users = held_out(split)
    (found,) = baseline_lists((name,), BaselineTask(split, users, ITEMS, on_step=said.append), 1)
    assert recall(found.lists, users.labels, 1).mean() > 0.9
    epochs = int(found.chosen.removeprefix("dropout 0.1, ").removesuffix(" epochs"))
    assert sum("dropout 0.1, epoch " in each for each in said) == 20
    assert said[-1].endswith(f"final training with seed 0, epoch {epochs} of {epochs}")


def trained(name: str, users: HeldOut, dropout: float, seed: int, epochs: int) -> SequenceNetwork:
    """The network that has learnt what users know."""
    learning = Training(Lesson(name, users.known, ITEMS, dropout, seed))
    for _ in range(epochs):
        learning.advance()
    return learning.network


def test_the_same_seed_gives_the_same_network_and_leaves_others_numbers_alone() -> None:
    users = held_out(circles())
    state = torch.random.get_rng_state()
    tables = []
    for seed in (0, 0, 1):
        tables.append(scores_of(trained("sasrec", users, 0.3, seed, 3), users)(range(len(users))))
        torch.rand(3)
    np.testing.assert_array_equal(tables[0], tables[1])
    assert (tables[0] != tables[2]).any()
    torch.random.set_rng_state(state)
    expected = torch.rand(3)
    torch.random.set_rng_state(state)
    trained("gru4rec", users, 0.3, 0, 1)
    assert torch.equal(torch.rand(3), expected)


def test_batches_hold_every_row_once_and_rows_of_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(2, 50, size=3 * training.BATCH * training.DRAWN + 7)
    found = batches(lengths, np.random.default_rng(1))
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    assert max(map(len, found)) <= training.BATCH
    # A batch of all rows alike would span nearly all lengths.
    assert max(int(np.ptp(lengths[batch])) for batch in found) <= 10
    again = batches(lengths, np.random.default_rng(2))
    assert any(first.tolist() != second.tolist() for first, second in zip(found, again, strict=True))


@pytest.mark.parametrize("ended", [0, 1, 4, 7, 10])
def test_an_interrupted_baseline_goes_on_to_the_same_lists(ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted while a dropout is tried, between two, and while the second seed learns all that is known."""
    monkeypatch.setattr(neural, "MOST_EPOCHS", 3)
    split = circles()

    class Interrupted(Exception):
        pass

    def interrupt(said: str) -> None:
        steps.append(said)
        if len(steps) == ended + 1:
            raise Interrupted

    def lists(folder: Path | None) -> list[object]:
        task = BaselineTask(split, held_out(split), ITEMS, networks=2, folder=folder, on_step=interrupt)
        return list(baseline_lists(("gru4rec",), task, 3))

    steps: list[str] = [""] * 1000
    whole = lists(None)
    uninterrupted = steps[1000:]
    steps = []
    with pytest.raises(Interrupted):
        lists(tmp_path)
    steps = [""] * 1000
    assert lists(tmp_path) == whole
    # What was kept is not learnt again: epochs after the one that was under way, and the name of the baseline.
    assert len(steps) - 1000 <= len(uninterrupted) - ended + 1
    (tmp_path / "mine.pt").touch()
    forget_networks(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.pt"]


def test_the_network_that_is_compared_on_the_part_that_chose_is_that_of_the_chosen_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of the same lesson as the one that was kept while it was tried whether more epochs are better."""
    monkeypatch.setattr(neural, "MOST_EPOCHS", 7)
    monkeypatch.setattr(neural, "PATIENCE", 3)
    # The first epoch is the best, so that those that follow it are learnt for nothing.
    merits = iter(range(1000, 0, -1))
    monkeypatch.setattr(neural, "merit", lambda quality: next(merits))
    split = circles()
    task = BaselineTask(split, held_out(split, "valid"), ITEMS, networks=2)
    expected = list(baseline_lists(("gru4rec",), task, 3))
    assert expected[0].chosen == "dropout 0.2, 1 epochs"
    for _ in range(2):
        assert list(baseline_lists(("gru4rec",), replace(task, folder=tmp_path), 3)) == expected


def test_epochs_are_chosen_by_lists_of_the_kind_that_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a folder holds networks whose epochs were chosen by lists of the other kind."""
    monkeypatch.setattr(neural, "MOST_EPOCHS", 2)
    judged = []

    def judge(*asked: object, keep_seen: bool) -> list[list[int]]:
        judged.append(keep_seen)
        return ranked_lists(*asked, keep_seen=keep_seen)

    monkeypatch.setattr(neural, "ranked_lists", judge)
    split = circles()
    for keep_seen, folder in ((False, tmp_path), (True, tmp_path), (False, tmp_path)):
        judged.clear()
        task = BaselineTask(split, held_out(split), ITEMS, keep_seen=keep_seen)
        found = list(baseline_lists(("gru4rec",), replace(task, folder=folder), 3))
        assert judged == [keep_seen] * 4, "both epochs of each dropout are judged"
        assert found == list(baseline_lists(("gru4rec",), task, 3))
        # What was chosen is not chosen again.
        judged.clear()
        assert list(baseline_lists(("gru4rec",), replace(task, folder=folder), 3)) == found
        assert not judged


def test_networks_of_other_data_are_not_gone_on_from() -> None:
    first, other = (held_out(circles(known=known)).known for known in (3, 4))
    lessons = [Lesson("gru4rec", first, ITEMS, 0.2, 0), Lesson("sasrec", first, ITEMS, 0.2, 0), Lesson("gru4rec", other, ITEMS, 0.2, 0)]
    lessons += [
        Lesson("gru4rec", first, ITEMS + 1, 0.2, 0),
        Lesson("gru4rec", first, ITEMS, 0.5, 0),
        Lesson("gru4rec", first, ITEMS, 0.2, 1),
    ]
    assert len({lesson.digest for lesson in lessons}) == len(lessons)


def test_the_figures_of_several_networks_are_means_over_their_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural, "DEFAULT_EPOCHS", 2)
    split = circles()
    alone = Split(split.train, split.valid.where(np.zeros(len(split.valid), np.bool_)), split.test)
    users = held_out(alone)
    (row,), _ = baseline_rows(("gru4rec",), BaselineTask(alone, users, ITEMS, networks=3), [3])
    expected = []
    for seed in range(3):
        scores = scores_of(trained("gru4rec", users, 0.2, seed, 2), users)
        expected.append(quality_of(users, ranked_lists(users, scores, 3), 3))
    assert row.seeds == expected
    assert len({each.recall for each in expected}) > 1
    assert row.quality.recall == pytest.approx(sum(each.recall for each in expected) / 3)
    assert row.quality.ndcg_error == pytest.approx(sum(each.ndcg_error for each in expected) / 3)


def test_scores_are_of_the_network_as_it_was() -> None:
    users = held_out(circles())
    learning = Training(Lesson("gru4rec", users.known, ITEMS, 0.0, 0))
    scores = scores_of(learning.network, users)
    before = scores(range(5))
    learning.advance()
    np.testing.assert_array_equal(scores(range(5)), before)


def test_without_validation_users_the_default_epochs_are_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural, "DEFAULT_EPOCHS", 2)
    split = circles()
    alone = Split(split.train, split.valid.where(np.zeros(len(split.valid), np.bool_)), split.test)
    (found,) = baseline_lists(("sasrec",), BaselineTask(alone, held_out(alone), ITEMS), 3)
    assert found.chosen == "dropout 0.2, 2 epochs, by default"
