"""Cells in processes of their own: every way to end is a result, and costs nobody else anything."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.models.isolation import Ending, in_child
from drafting.errors import SetupError


def refuse() -> None:
    raise SetupError("It has wheels, which can't be served.")


def fail() -> None:
    print("a warning of a library")
    raise KeyError("atspeed_tree")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("function", "kind", "answer"),
    [
        (lambda: {"1 0": [[[3, 4], -0.5]]}, "answered", {"1 0": [[[3, 4], -0.5]]}),
        (refuse, "refused", "It has wheels, which can't be served."),
        (die, "crash", "ended by SIGKILL"),
        (lambda: time.sleep(60), "hang", "no answer within 1 s"),
    ],
)
def test_what_becomes_of_a_child_is_told_by_its_kind(function: Callable[[], object], kind: str, answer: object, tmp_path: Path) -> None:
    assert in_child(function, seconds=1 if kind == "hang" else 60, log=tmp_path / "log") == Ending(kind, answer)


def test_a_traceback_is_told_with_its_place_and_kept(tmp_path: Path) -> None:
    ending = in_child(fail, seconds=10, log=tmp_path / "log")
    assert ending.kind == "traceback"
    assert str(ending.answer).startswith("KeyError: 'atspeed_tree' (test_isolation.py, line ")
    assert "a warning of a library" in (tmp_path / "log").read_text()
