"""The comparison itself, on systems whose times and lists are known."""

import pytest

from benchmarks.systems import interleaved
from benchmarks.systems.interleaved import Contender, SystemFailedError, SystemProcess, compare
from benchmarks.systems.question import Outcome, Question, SystemSpec


class Known:
    """A system that takes k milliseconds times its slowness, and remembers what it was asked."""

    def __init__(self, name: str, slowness: float, wrong_after: int = 1000) -> None:
        self.name = name
        self.slowness = slowness
        self.wrong_after = wrong_after
        self.asked: list[tuple[str, int]] = []

    def wait_ready(self) -> None:
        pass

    def close(self) -> None:
        pass

    def search(self, question: Question) -> list[Outcome]:
        self.asked.append((question.plan, len(question.histories)))
        return [
            Outcome(1e-3 * self.slowness * question.k, [(history[0] + (history[0] >= self.wrong_after),)], 2, 10.0)
            for history in question.histories
        ]


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaved, "SETTLE_SECONDS", 0)


def test_rows_say_what_was_measured_and_whose_lists_differ():
    first, second = Known("first", 1.0), Known("second", 3.0, wrong_after=8)
    contenders = [Contender(first), Contender(first, "trie"), Contender(second)]
    told: list[int] = []
    rows = compare(contenders, [[number] for number in range(10)], [2, 5], warm_up=3, progress=told.append)
    assert [(row.system, row.plan, row.k) for row in rows[:3]] == [("first", "none", 2), ("first", "trie", 2), ("second", "none", 2)]
    assert [round(row.p50_ms, 6) for row in rows] == [2, 2, 6, 5, 5, 15]
    assert [row.lists_equal for row in rows[:3]] == ["7/7", "7/7", "5/7"]
    assert [round(row.lists_per_s) for row in rows] == [500, 500, 167, 200, 200, 67]
    assert sum(told) == 2 * 3 * 10


def test_turns_rotate_and_those_who_run_together_are_asked_in_blocks():
    system = Known("only", 1.0)
    contenders = [Contender(system), Contender(system, "trie"), Contender(system, "none", 4), Contender(system, "trie", 4)]
    rows = compare(contenders, [[number] for number in range(10)], [1], warm_up=2, progress=lambda asked: None)
    alone, together = system.asked[:20], system.asked[20:]
    assert [plan for plan, _ in alone[:4]] == ["none", "trie", "trie", "none"]
    # Two are left over for the last turn, and asked beside six that do not count.
    assert together == [("none", 8), ("trie", 8), ("trie", 8), ("none", 8)]
    assert [row.lists_equal for row in rows] == ["8/8"] * 4
    assert [round(row.lists_per_s) for row in rows] == [1000, 1000, 4000, 4000]


def test_a_system_that_cannot_be_loaded_says_why(tmp_path):
    process = SystemProcess(SystemSpec("atspeed/transformers", tmp_path, tmp_path / "missing.jsonl", 1))
    try:
        with pytest.raises(SystemFailedError, match=r"The catalog .*missing.jsonl cannot be read"):
            process.wait_ready()
    finally:
        process.close()
