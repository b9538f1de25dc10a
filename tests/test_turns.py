"""Turns of the workers of a test run: exclusive ones have the machine to themselves, and a run within a test waits for nobody."""

import threading
from pathlib import Path

import pytest

from tests import turns

SOON = 0.1
# Longer than any machine is away for; a turn that is waited for here for so long never comes.
LATE = 30.0


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other files than those of this run."""
    for name in ("GATE", "ROOM"):
        (tmp_path / name).touch()
        monkeypatch.setattr(turns, name, tmp_path / name)


class Worker:
    """Takes one turn in a thread of its own, and keeps it until it is told to end."""

    def __init__(self, exclusive: bool) -> None:
        self.has_turn, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._take, args=(exclusive,), daemon=True)
        self._thread.start()

    def _take(self, exclusive: bool) -> None:
        with turns.turn(exclusive):
            self.has_turn.set()
            self._end.wait(2 * LATE)

    def end(self) -> None:
        self._end.set()
        self._thread.join(LATE)
        assert not self._thread.is_alive()


def test_shared_turns_are_taken_together_and_an_exclusive_one_is_next_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    first, second = Worker(exclusive=False), Worker(exclusive=False)
    assert first.has_turn.wait(LATE)
    assert second.has_turn.wait(LATE)
    alone = Worker(exclusive=True)
    assert not alone.has_turn.wait(SOON)
    later = Worker(exclusive=False)
    assert not later.has_turn.wait(SOON)
    first.end()
    assert not alone.has_turn.wait(SOON)
    second.end()
    assert alone.has_turn.wait(LATE)
    assert not later.has_turn.wait(SOON)
    alone.end()
    assert later.has_turn.wait(LATE)
    later.end()


def test_a_run_within_a_test_does_not_wait_behind_who_waits_for_that_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    outer = Worker(exclusive=False)
    assert outer.has_turn.wait(LATE)
    alone = Worker(exclusive=True)
    assert not alone.has_turn.wait(SOON)
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "tests/test_outer.py::test_it (call)")
    inner = Worker(exclusive=False)
    assert inner.has_turn.wait(LATE)
    inner.end()
    outer.end()
    assert alone.has_turn.wait(LATE)
    alone.end()
