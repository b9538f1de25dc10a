"""Rounds: what is asked of the server follows from what it did in the same round, and the median round is the figure."""

import msgspec

from benchmarks.load.counters import Counters
from benchmarks.load.report import LoadReport, make_report
from benchmarks.load.rounds import Round, measure_rounds, median_ratio
from benchmarks.load.settings import LoadSettings

EMPTY = make_report("http://x", LoadSettings(1.0, 10.0, 1.0, 10, (1000, 1000)), Counters(), stored=0, refused=0, lost=0)


def test_a_round_loads_by_the_saturation_that_it_has_found_itself():
    # Lists a second that the machine is good for in each round, and how long one of many takes.
    speeds = {1: (100.0, 40.0), 2: (50.0, 80.0), 3: (130.0, 50.0)}
    asked: list[float] = []

    def load(rate: float) -> LoadReport:
        speed, p99_ms = speeds[1 + len(asked) // 3]
        asked.append(rate)
        return msgspec.structs.replace(EMPTY, completed_rps=min(rate, speed), p50_ms=10.0, p99_ms=p99_ms)

    rounds = measure_rounds(load, 100.0)
    assert asked == [140.0, 70.0, 1.0, 140.0, 35.0, 1.0, 140.0, 91.0, 1.0]
    assert [one.saturation_rps for one in rounds] == [100.0, 50.0, 130.0]
    assert [one.ratio for one in rounds] == [4.0, 8.0, 5.0]
    assert median_ratio(rounds) == 5.0


def test_a_round_survives_its_file():
    one = Round(saturation_rps=9.0, busy=EMPTY, idle=EMPTY)
    assert msgspec.json.decode(msgspec.json.encode(one), type=Round) == one
