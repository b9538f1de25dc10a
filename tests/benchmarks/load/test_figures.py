"""The generator's arithmetic: percentiles, who asks, which server may be loaded, where the knee is."""

import json
import math
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.load.counters import Counters, Usage
from benchmarks.load.histogram import LatencyHistogram
from benchmarks.load.plot import save_plot
from benchmarks.load.report import LoadReport, make_report
from benchmarks.load.settings import LoadSettings
from benchmarks.load.sweep import figures, knee
from benchmarks.load.target import TargetError, check_url
from benchmarks.load.users import HistoriesError, Users, random_histories, read_histories


def report(rate: float, *, on_time: int, refused: int = 0, hung_up: int = 0) -> LoadReport:
    counters = Counters()
    for _ in range(on_time):
        counters.add_list(0.01, 1.0, Usage(100, 90))
    for _ in range(refused):
        counters.add_failure(429, 0.001)
    for _ in range(hung_up):
        counters.add_hang_up()
    return make_report("http://x", LoadSettings(rate, 10.0, 1.0, 10, (1000, 1000)), counters, stored=0, refused=0, lost=0)


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 1.0, 100.0])
def test_percentiles_are_right_to_a_five_hundredth_at_any_scale(scale: float):
    values = np.random.default_rng(0).lognormal(size=5000) * scale
    histogram = LatencyHistogram()
    for value in values:
        histogram.add(float(value))
    for percent in (0.1, 50, 90, 99, 99.9, 100):
        exact = float(np.sort(values)[math.ceil(round(5000 * percent / 100, 6)) - 1])
        assert histogram.percentile(percent) == pytest.approx(exact, rel=0.002, abs=1.1e-6)
    assert histogram.mean == pytest.approx(values.mean())
    assert histogram.longest == values.max()


def test_of_nothing_there_is_no_percentile():
    assert math.isnan(LatencyHistogram().percentile(99))
    assert report(10, on_time=0).p99_ms is None
    assert report(10, on_time=0).cached_token_share is None


def test_a_few_users_ask_often_and_two_runs_ask_alike():
    one, other = Users(100, 1.0, seed=7), Users(100, 1.0, seed=7)
    drawn = [one.draw() for _ in range(20000)]
    assert drawn == [other.draw() for _ in range(20000)]
    counts = Counter(drawn)
    assert counts["load-7-0"] / counts["load-7-9"] == pytest.approx(10, rel=0.25)
    assert len(counts) == 100
    equals = Users(10, 0.0, seed=1)
    even = Counter(equals.draw() for _ in range(10000))
    assert max(even.values()) / min(even.values()) < 1.3


def test_histories_of_a_file(tmp_path: Path):
    path = tmp_path / "histories.jsonl"
    path.write_text('{"user_id": "a", "history": ["1", "2"]}\n\n{"history": []}\n{"history": ["3"]}\n')
    assert read_histories(path) == [["1", "2"], ["3"]]
    path.write_text('{"history": ["1"]}\n[]\n')
    with pytest.raises(HistoriesError, match=r"^Line 2 of .* is not a user: "):
        read_histories(path)
    path.write_text("\n")
    with pytest.raises(HistoriesError, match=r" has no histories\.$"):
        read_histories(path)
    with pytest.raises(HistoriesError, match=r" can't be read: No such file or directory\.$"):
        read_histories(tmp_path / "none")
    assert random_histories(["a", "b"], 3, 4, seed=1) == random_histories(["a", "b"], 3, 4, seed=1)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:1", "https://[::1]:8000", "http://127.9.9.9"])
def test_a_server_on_this_machine_may_be_loaded(url: str):
    check_url(url, allow_remote=False)


def test_another_machine_is_only_loaded_on_request():
    with pytest.raises(TargetError, match=r"^http://192\.0\.2\.1:8000 is not on this machine: .* give --allow-remote\.$"):
        check_url("http://192.0.2.1:8000", allow_remote=False)
    check_url("http://192.0.2.1:8000", allow_remote=True)
    for url in ("127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://[::1", "http://127.0.0.1:port"):
        with pytest.raises(TargetError, match="is not the URL of a server"):
            check_url(url, allow_remote=True)


def test_the_knee_is_the_last_rate_up_to_which_nearly_everybody_is_served_in_time():
    kept, lost = report(10, on_time=100), report(20, on_time=150, refused=50)
    lucky = report(30, on_time=300)
    assert knee([kept, lost, lucky]) == 10
    assert knee([kept, lucky]) == 30
    assert knee([lost]) is None
    # A client that goes away is nothing that the server could have done better.
    assert knee([report(10, on_time=80, hung_up=20), report(20, on_time=140, hung_up=40, refused=20)]) == 10
    assert figures([lost, kept]).saturation_rps == 15.0


def test_a_report_adds_up_and_can_be_drawn(tmp_path: Path):
    found = figures([report(20, on_time=150, refused=50), report(10, on_time=100)])
    assert [run.rate for run in found.runs] == [10, 20]
    overloaded = found.runs[1]
    assert (overloaded.offered_rps, overloaded.completed_rps, overloaded.goodput_rps, overloaded.refused) == (20.0, 15.0, 15.0, 50)
    assert (overloaded.p99_ms, overloaded.refused_p99_ms, overloaded.cached_token_share) == (10.0, 1.0, 0.9)
    assert json.loads(msgspec.json.encode(found))["runs"][0]["goodput_rps"] == 10.0
    pytest.importorskip("matplotlib")
    save_plot(found, tmp_path / "load.png")
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
