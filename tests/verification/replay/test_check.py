"""The ratio of two plans' times comes with how far it may be off."""

import numpy as np
import pytest

from verification.replay.check import _speedup


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
def test_a_speed_up_is_as_unsure_as_its_blocks_differ(noise: float) -> None:
    rng = np.random.default_rng(1)
    pace = np.exp(noise * rng.standard_normal((2, 64, 1))) * (1 + 0.01 * rng.standard_normal((2, 64, 16)))
    plain, fast = list(2.0 * pace[0]), list(pace[1])
    speedup, error = _speedup(plain, fast)
    # Each median is some 1.25 times as unsure as a mean, and there are two of them.
    assert error == pytest.approx(2 * 1.25 * 2**0.5 * noise / 64**0.5, rel=0.5, abs=0.01)
    assert abs(speedup - 2) <= max(4 * error, 0.02)
