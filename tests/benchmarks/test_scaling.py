"""The simulation of scaling out: one replica knows no difference, more of them do, and what is simulated is what the engine does."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.scaling import PromptCache, Traffic, World, make_traffic, make_world, replica, simulate, window_start

SMALL = World(users=200, rate=20.0, seconds=30.0, warmup_seconds=10.0)


def test_one_replica_knows_no_difference():
    assert simulate(SMALL, 1, affinity=True).cached == simulate(SMALL, 1, affinity=False).cached


def test_affinity_keeps_what_the_cache_is_worth_and_its_absence_loses_it():
    with_affinity = [simulate(SMALL, replicas, affinity=True) for replicas in (1, 4, 8)]
    without = [simulate(SMALL, replicas, affinity=False) for replicas in (1, 4, 8)]
    assert max(figures.cached for figures in with_affinity) < 1.15 * min(figures.cached for figures in with_affinity)
    assert without[0].cached > 1.5 * without[1].cached > 1.5 * 1.5 * without[2].cached
    assert without[2].p99_ms > with_affinity[2].p99_ms


def test_users_ask_at_the_rate_and_come_back_with_longer_histories():
    traffic = make_traffic(SMALL, 2)
    assert len(traffic.times) == pytest.approx(2 * SMALL.rate * SMALL.seconds, rel=0.15)
    assert (np.diff(traffic.times) >= 0).all()
    often = np.bincount(traffic.users).argmax()
    lengths = traffic.lengths[traffic.users == often]
    assert (np.diff(lengths) >= 0).all()
    assert lengths[-1] > lengths[0]


@pytest.mark.parametrize(
    ("before", "now", "cached"),
    [
        (None, 10, 0),
        (10, 10, 39),
        (10, 12, 40),
        (20, 20, 79),
        # A window that holds no more moves with every item.
        (20, 21, 0),
        (25, 25, 79),
    ],
)
def test_a_prompt_is_reused_as_far_as_it_is_the_same(before: int | None, now: int, cached: int):
    cache = PromptCache(World(min_items=20))
    if before is not None:
        cache.look_up(7, before)
    assert cache.look_up(7, now) == (4 * min(now, 20), cached)


def test_a_window_with_room_stays_where_it_is_for_some_items():
    starts = [window_start(SMALL, 7, length) for length in range(1, 200)]
    assert starts[:20] == [0] * 20
    assert all(10 <= length - start <= 20 for length, start in enumerate(starts, 1) if length > 20)
    assert starts == sorted(starts)
    assert 20 < len(set(starts)) < 60


def test_the_least_recently_used_prompt_goes_first():
    cache = PromptCache(World(slots=100))
    for user in (1, 2, 1, 3):
        cache.look_up(user, 12)
    assert cache.look_up(1, 12)[1] == 47
    assert cache.look_up(2, 12)[1] == 0


def test_a_request_alone_takes_a_forward_per_level():
    traffic = Traffic(np.array([1.0]), np.array([0]), np.array([20]))
    ((arrived, latency, prompt, cached),) = replica(SMALL, traffic, np.array([0]))
    assert (arrived, prompt, cached) == (1.0, 80, 0)
    expected = 4 * SMALL.forward_ms + SMALL.token_ms * (80 + 3 * SMALL.k)
    assert math.isclose(1000 * latency, expected)


def test_requests_at_once_share_forwards():
    traffic = Traffic(np.array([0.0, 0.0]), np.array([0, 1]), np.array([20, 20]))
    latencies = [end[1] for end in replica(SMALL, traffic, np.array([0, 1]))]
    alone = 4 * SMALL.forward_ms + SMALL.token_ms * (80 + 3 * SMALL.k)
    assert latencies[0] == latencies[1] < 2 * alone / 1000


def test_tokens_that_cost_nothing_fill_no_step():
    traffic = Traffic(np.zeros(3), np.arange(3), np.full(3, 20))
    ends = replica(replace(SMALL, token_ms=0.0), traffic, np.arange(3))
    assert [latency for _, latency, _, _ in ends] == pytest.approx([4 * SMALL.forward_ms / 1000] * 3)


def test_a_directory_that_is_not_there_is_refused_before_anything_is_simulated(tmp_path: Path):
    result = CliRunner().invoke(app, ["scaling", "--out", str(tmp_path / "none")], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["seconds=30"], "seconds must be above warmup_seconds"),
        (["max_items=5"], "min_items must be at least 1, and at most max_items"),
        (["rate=0"], "rate must be above 0"),
        (["k=0"], "users, levels, k and slots must be at least 1"),
        (["growth=2"], "growth must be a share from 0 to 1"),
        (["spread=-1"], "forward_ms, token_ms, spread and seed must be at least 0"),
        (["colour=1"], "There is no field 'colour' of the simulated world"),
        (["rate=fast"], "rate takes a number, got 'fast'"),
    ],
)
def test_a_world_that_can_not_be_is_a_sentence(settings: list[str], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        make_world(settings)
    assert make_world(["seconds=30", "warmup_seconds=10"]) == World(seconds=30.0, warmup_seconds=10.0)
