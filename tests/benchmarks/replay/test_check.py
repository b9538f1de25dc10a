"""The ratio of two plans' times comes with how far it may be off."""

import numpy as np
import pytest

from benchmarks.replay.check import _speedup


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_a_speed_up_is_as_unsure_as_its_blocks_differ(noise: float) -> None:
    rng = np.random.default_rng(1)
    pace = np.exp(noise * rng.standard_normal((2, 64, 1))) * (1 + 0.01 * rng.standard_normal((2, 64, 16)))
    plain, fast = list(2.0 * pace[0]), list(pace[1])
    speedup, error = _speedup(plain, fast)
    # Each median is some 1.25 times as unsure as a mean, and there are two of them.
    assert error == pytest.approx(2 * 1.25 * 2**0.5 * noise / 64**0.5, rel=0.35)
    assert abs(speedup - 2) <= 4 * error


def test_a_pace_that_both_share_makes_no_error() -> None:
    pace = np.exp(0.3 * np.random.default_rng(1).standard_normal((64, 1))) * np.ones((64, 16))
    speedup, error = _speedup(list(2.0 * pace), list(pace))
    assert speedup == pytest.approx(2)
    assert error < 1e-9


def test_one_block_says_nothing_of_the_error() -> None:
    assert np.isnan(_speedup([np.ones(4)], [np.ones(4)])[1])
