"""Labels that their users had met: counted by a loop over users, and refused where they are most of them."""

import numpy as np
import pytest

from drafting.alignment.data.interactions import Interactions, Split, leave_one_out
from drafting.alignment.data.met_labels import MetLabels, check_labels_are_new, met_labels
from drafting.errors import InteractionError
from drafting.trie.arrays import offsets_of
from verification.evaluation.users import held_out

USERS = 30


def random_split(seed: int) -> Split:
    """Parts as a split by time makes them, with events between labels, or one of each user; few items, so that many are met again."""
    rng = np.random.default_rng(seed)

    def some(most: int) -> Interactions:
        lengths = rng.integers(0, most, size=USERS)
        size = int(lengths.sum())
        items, labelled = rng.integers(rng.integers(2, 15), size=size).astype(np.int32), rng.random(size) < 0.6
        return Interactions(tuple(map(str, range(USERS))), offsets_of(lengths), items, labelled=labelled)

    return leave_one_out(some(12)) if seed % 2 else Split(some(9), some(5), some(5))


def counted(split: Split, part: str) -> MetLabels:
    users = held_out(split, part)
    met = sum(len(set(labels) & set(history)) for labels, history in zip(users.labels, users.histories, strict=True))
    return MetLabels(met, sum(map(len, users.labels)))


def test_what_lists_without_seen_items_can_not_hold_is_counted() -> None:
    refused = 0
    for seed in range(40):
        split = random_split(seed)
        assert met_labels(split, "test") == counted(split, "test")
        found = counted(split, "valid")
        met, labels = found.met, found.labels
        if 2 * met <= labels:
            check_labels_are_new(split)
            continue
        refused += 1
        with pytest.raises(InteractionError, match=rf"^{met} of {labels} validation labels are items that their users had met before"):
            check_labels_are_new(split)
    assert 5 < refused < 35


def test_without_validation_labels_there_is_nothing_to_refuse() -> None:
    split = random_split(0)
    none = split.valid.where(np.zeros(len(split.valid), np.bool_))
    check_labels_are_new(Split(split.train, none, split.test))
