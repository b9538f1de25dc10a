"""Windows: the newest items, and beginnings that stay for several items."""

import itertools

import numpy as np
import pytest

from drafting.prompts.window import Window


def test_a_window_keeps_the_newest_items() -> None:
    assert Window(2).of([0, 1]) == [0, 1]
    assert Window(2, 2).of([0, 1, 2]) == [1, 2]


def test_a_long_history_keeps_its_prefix_for_several_items() -> None:
    window = Window(20, 11)
    history = np.random.default_rng(0).permutation(500).tolist()
    windows = [list(window.of(history[:length])) for length in range(1, 500)]
    assert windows[:20] == [history[:length] for length in range(1, 21)]
    kept = 0
    for length, (before, after) in enumerate(itertools.pairwise(windows[19:]), start=20):
        assert 11 <= len(after) <= 20
        assert after == history[length + 1 - len(after) : length + 1]
        kept += after[: len(before)] == before
    assert kept / 480 > 0.75  # two in eleven windows are expected to start elsewhere than the one before


@pytest.mark.parametrize("given", [21, 22, 100])
def test_a_window_does_not_depend_on_how_much_of_a_long_history_is_given(given: int) -> None:
    history = np.random.default_rng(1).permutation(500).tolist()
    for end in range(120, 200):
        assert Window(20).of(history[end - given : end]) == Window(20).of(history[:end])


def test_a_window_that_moves_with_every_item_can_be_asked_for() -> None:
    history = list(range(100))
    assert [Window(8, 8).of(history[:end]) for end in (8, 9, 50)] == [history[:8], history[1:9], history[42:50]]


@pytest.mark.parametrize("fewest", [None, 1, 8, 20])
def test_a_narrower_window_begins_no_earlier(fewest: int | None) -> None:
    """So the fewer items it may have, the shorter a prompt is."""
    history = np.random.default_rng(2).permutation(500).tolist()
    window = Window(20, fewest)
    for end in (15, 20, 21, 100, 500):
        lengths = [len(window.narrowed(most).of(history[:end])) for most in range(1, 25)]
        assert lengths == sorted(lengths)
        assert lengths[0] == 1
        assert lengths[19:] == [len(window.of(history[:end]))] * 5
        assert all(length <= most for most, length in enumerate(lengths, 1))
    assert Window(20, 20).narrowed(7) == Window(7, 7)
