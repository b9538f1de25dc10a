"""Turns among rivals, with workers that need no library: who is asked what, what is counted, and how failures are told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.rivals import process, turns
from benchmarks.rivals.entrants import DRAFTS, RIVALS, Entrant, Rival, entrants
from benchmarks.rivals.environment import Environment, RivalError, prepare
from benchmarks.rivals.process import Answer, RivalProcess
from benchmarks.rivals.report import cells
from benchmarks.rivals.turns import Row, race, rows

CATALOG = frozenset((token, token) for token in range(100))
# Answers k identifiers from the prompt's first token on; how it is loaded and asked says how many of them are wrong.
WORKER = """
import sys, time

def load(spec):
    print("what libraries print")
    def search(prompt, k, foreign=0, fall=False):
        if fall:
            print("all is lost", file=sys.stderr)
            sys.exit(3)
        time.sleep(spec["seconds"])
        return [[token, token + (place < foreign)] for place, token in enumerate(range(prompt[0], prompt[0] + k - spec["short"]))]
    return search
"""
RIVAL = Rival("stand-in", "stand_in.py")


@pytest.fixture(autouse=True)
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stand_in.py").write_text(WORKER)
    (tmp_path / "serve.py").write_text((process.WORKERS / "serve.py").read_text())
    monkeypatch.setattr(process, "WORKERS", tmp_path)
    monkeypatch.setattr(turns, "SETTLE_SECONDS", 0)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[dict[str, RivalProcess]]:
    """A complete worker, one whose lists are short, and one that is slow."""
    prepared = prepare("stand-in", Environment(), tmp_path, None, print)
    made = {
        name: RivalProcess(name, "stand_in.py", prepared, {"threads": 1, "short": short, "seconds": seconds}, tmp_path / f"{name}.log")
        for name, short, seconds in (("whole", 0, 0.0), ("short", 2, 0.0), ("slow", 0, 0.02))
    }
    for each in made.values():
        each.wait_ready()
    yield made
    for each in made.values():
        each.close()


def test_complete_short_and_foreign_lists_are_told_apart(running: dict[str, RivalProcess]):
    ours = Entrant("ours", RIVAL, "", against="ours")
    others = {
        Entrant("equal", RIVAL, "", against="ours"): running["whole"],
        Entrant("short", RIVAL, "", against="ours"): running["short"],
        Entrant("foreign", RIVAL, "", ask={"foreign": 3}, against=None): running["whole"],
        Entrant("never this long", RIVAL, "", longest=4): running["whole"],
    }
    prompts = [[number, 7] for number in range(5)]
    asked: list[int] = []
    made = rows(race({ours: running["whole"], **others}, prompts, 5, 2, asked.append, print), 5, CATALOG)
    assert [(row.entrant, row.lists, row.complete, row.shortest, row.equal) for row in made] == [
        ("ours", 3, 3, 5, 3),
        ("equal", 3, 3, 5, 3),
        ("short", 3, 0, 3, 0),
        ("foreign", 3, 0, 2, None),
    ]
    assert len(asked) == len(prompts)
    assert cells(made)[2][3:] == (f"{made[2].processor_ms:.1f}", cells(made)[2][4], "0/3", "3", "0/3")


def test_who_has_used_up_its_share_of_the_time_is_asked_no_more(running: dict[str, RivalProcess], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "SHARE_SECONDS", 0.05)
    fast, slow = Entrant("fast", RIVAL, ""), Entrant("slow", RIVAL, "", against="fast")
    made = rows(race({fast: running["whole"], slow: running["slow"]}, [[1]] * 12, 3, 1, lambda _: None, print), 3, CATALOG)
    assert [(row.entrant, row.lists, row.equal) for row in made] == [("fast", 11, None), ("slow", turns.FEWEST, turns.FEWEST)]
    assert made[1].p50_ms > 20 > made[1].processor_ms


def test_one_that_dies_is_a_sentence_and_the_others_go_on(running: dict[str, RivalProcess]):
    told: list[str] = []
    falls = Entrant("falls", RIVAL, "", ask={"fall": True})
    answers = race({falls: running["short"], Entrant("stays", RIVAL, ""): running["whole"]}, [[1]] * 4, 3, 1, lambda _: None, told.append)
    assert [entrant.label for entrant in answers] == ["stays"]
    assert [sentence.partition(", and ")[0] for sentence in told] == ["short is left out: its process ended"]
    assert told[0].endswith("ends with: all is lost")
    with pytest.raises(RivalError, match="its process ended"):
        running["short"].ask([1], 3, {})


def test_forms_are_told_apart_and_held_against_forms_that_take_part():
    everyone = entrants([rival.name for rival in RIVALS])
    labels = [entrant.label for entrant in everyone]
    assert len(set(labels)) == len(labels)
    assert {entrant.against for entrant in everyone} - {None} <= set(labels)
    assert all((process.Path(turns.__file__).parent / "workers" / rival.worker).is_file() for rival in RIVALS)
    # Twice as many forms as ways of loading: plans and drafts share the models.
    assert len({entrant.process_key for entrant in everyone}) < len(everyone)
    assert {entrant.longest for entrant in everyone} == {None, DRAFTS}
    assert [entrant.rival.name for entrant in entrants(["vllm", "atspeed"])][:1] == ["atspeed"]


def test_times_are_told_as_multiples_of_ours_where_it_takes_part():
    ours, other = (Row(name, "", 10, 1.0, 2.0, time, 3, 3, 10, None, None, 0) for name, time in (("atspeed/vllm", 4.0), ("vllm", 10.0)))
    assert [row[4] for row in cells([ours, other])] == ["1.00", "2.50"]
    assert [row[4] for row in cells([other, ours])] == ["2.50", "1.00"]
    assert [row[4] for row in cells([other])] == [""]


def test_a_list_that_the_other_has_not_made_is_not_another_one():
    """The other has used up its share of the time, as a large model does after a few lists."""
    answer = Answer(1.0, 1.0, ((1, 1),))
    slow, fast = Entrant("slow", RIVAL, ""), Entrant("fast", RIVAL, "", against="slow")
    _, row = made = rows({slow: [answer] * 3, fast: [answer] * 8}, 1, CATALOG)
    assert (row.lists, row.equal, row.compared) == (8, 3, 3)
    assert cells(made)[1][-1] == "3/3"
