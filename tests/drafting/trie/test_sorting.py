"""Both sorts give one order."""

import numpy as np
import pytest

from drafting.trie import arrays
from drafting.trie.arrays import stable_order


@pytest.mark.parametrize("radix_from", [0, 10**9])
def test_all_of_64_bits_count_and_equal_keys_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, radix_from: int):
    monkeypatch.setattr(arrays, "RADIX_FROM", radix_from)
    rng = np.random.default_rng(0)
    few = np.array([0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1], np.uint64)
    keys = np.concatenate([few[rng.integers(len(few), size=5000)], rng.integers(1 << 64, size=500, dtype=np.uint64)])
    expected = sorted(range(len(keys)), key=keys.tolist().__getitem__)
    assert stable_order(keys).tolist() == expected
