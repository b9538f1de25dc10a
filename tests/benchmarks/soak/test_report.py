"""What a soak says of its figures: each broken promise, each that could not be judged, and nothing else."""

from pathlib import Path

import msgspec
import pytest

from benchmarks.soak.answers import Answers, NoAnswer, Promise
from benchmarks.soak.faults import Fault
from benchmarks.soak.memory import IdlePoint, api_growth, engine_growth
from benchmarks.soak.phases import FEWEST, Lethal, make_phases
from benchmarks.soak.plot import save_plot
from benchmarks.soak.report import SoakReport, make_timeline, plain


def points(*lives: tuple[int, list[float]]) -> list[IdlePoint]:
    """Idle points of API processes with these ids and sizes; the engine is one all the time and stays as it is."""
    looks = [(process, mib) for process, sizes in lives for mib in sizes]
    return [IdlePoint(seconds=9.0 * number, api=one, engine=9, api_mib=mib, engine_mib=500.0) for number, (one, mib) in enumerate(looks)]


def report(**changes: object) -> SoakReport:
    """A soak in which everything went well, with changes."""
    idle = points((1, [80.0]), (2, [90.0, 99.0, 100.0, 100.5, 101.0, 100.0]))
    answers = Answers()
    answers.count("POST /v1/recommendations", 200)
    answers.count("POST /v1/recommendations", NoAnswer.API_DOWN)
    good = SoakReport(
        date="today",
        machine="this",
        seconds=60,
        rate=1.0,
        seed=0,
        engine_hang_seconds=10.0,
        disk="tmpfs",
        api_starts=2,
        requests=answers.requests,
        answers=plain(answers.by_operation),
        events_acknowledged=3,
        users_forgotten=1,
        versions_acknowledged=2,
        items_acknowledged=4,
        activations_acknowledged=5,
        slots_used=0,
        waiting=0,
        faults=[Fault(kind="API killed", at=1.0, seconds=8.0), Fault(kind="API killed", at=9.0, seconds=7.0)],
        idle_points=idle,
        api_growth=api_growth(idle),
        engine_growth=engine_growth(idle),
        timeline=make_timeline(answers),
        broken={},
    )
    return msgspec.structs.replace(good, **changes)


def test_a_good_soak_has_nothing_to_say():
    assert report().sentences() == []
    assert "API killed 2 times (at most 8.0 s)" in report().summary()
    assert report().answers == {"POST /v1/recommendations": {"200": 1, "api_down": 1}}
    assert report().timeline == [{"answered": 1, "api_down": 1}]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"broken": {"lost": {"A version is lost.": 2}}}, "lost: A version is lost. (2 times)"),
        ({"slots_used": 7.0}, "7 key/value slots were in use and 0 requests waited while nothing ran."),
        ({"waiting": 1.0}, "0 key/value slots were in use and 1 requests waited while nothing ran."),
        ({"api_growth": api_growth(points((1, [90, 100, 101, 102.1])))}, "The API process grew by 2.1%, from 100.0 to 102.1 MiB."),
        ({"engine_growth": None}, "No engine lived long enough for its memory to be compared: soak for longer."),
        ({"items_acknowledged": 0}, "No items were acknowledged, so nothing was proved of them."),
    ],
)
def test_each_broken_promise_is_a_sentence(changes: dict[str, object], sentence: str):
    assert report(**changes).sentences() == [sentence]


def test_memory_is_that_of_the_process_that_lived_longest_after_its_warm_up():
    growth = api_growth(points((1, [10.0, 20.0]), (2, [50.0, 90.0, 100.0, 101.0, 103.0, 102.0]), (3, [10.0, 30.0])))
    assert growth is not None
    assert (growth.points, growth.from_mib, growth.most_mib) == (6, 100.0, 103.0)
    assert api_growth(points((1, [10.0] * 3), (2, [20.0] * 3))) is None


def test_complaints_are_counted_by_sentence():
    answers = Answers()
    answers.complain(Promise.NOTHING_LOST, None)
    for sentence in ("one", "one", "two"):
        answers.complain(Promise.NOTHING_LOST, sentence)
    assert plain({promise.value: counts for promise, counts in answers.broken.items()}) == {"lost": {"one": 2, "two": 1}}


@pytest.mark.parametrize("seconds", [60.0, 180.0, 1800.0])
def test_phases_are_equal_and_the_second_half_lets_processes_live(seconds: float):
    phases = make_phases(seconds)
    assert len(phases) >= FEWEST
    assert sum(phase.seconds for phase in phases) == pytest.approx(seconds)
    assert len({phase.seconds for phase in phases}) == 1
    faults = [phase.lethal for phase in phases]
    assert set(faults) == {None, *Lethal}
    assert all(fault is None for fault in faults[len(faults) // 2 :])
    last_api_kill = max(number for number, fault in enumerate(faults) if fault is Lethal.KILL_API)
    assert all(fault is Lethal.KILL_API for fault in faults[: last_api_kill + 1])


def test_the_picture_is_drawn(tmp_path: Path):
    save_plot(report(), tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
