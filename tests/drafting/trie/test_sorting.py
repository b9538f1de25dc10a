"""Both sorts give one order, and numbers are found where they stand."""

import numpy as np
import pytest

from drafting.trie import arrays
from drafting.trie.arrays import find_in_array, find_sorted, stable_order


@pytest.mark.parametrize("radix_from", [0, 10**9])
def test_all_of_64_bits_count_and_equal_keys_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, radix_from: int):
    monkeypatch.setattr(arrays, "RADIX_FROM", radix_from)
    rng = np.random.default_rng(0)
    few = np.array([0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1], np.uint64)
    keys = np.concatenate([few[rng.integers(len(few), size=5000)], rng.integers(1 << 64, size=500, dtype=np.uint64)])
    expected = sorted(range(len(keys)), key=keys.tolist().__getitem__)
    assert stable_order(keys).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_numbers_are_found_where_they_stand(seed: int):
    rng = np.random.default_rng(seed)
    among, wanted = rng.permutation(40)[: rng.integers(20)], rng.integers(-1, 45, size=rng.integers(30))
    for find, numbers in ((find_in_array, among), (find_sorted, np.sort(among))):
        places = {number: place for place, number in enumerate(numbers.tolist())}
        assert find(wanted, numbers).tolist() == [places.get(number, -1) for number in wanted.tolist()]
        assert find(wanted, numbers[:0]).tolist() == [-1] * len(wanted)
