"""The expansion's benchmark: all that it times finds the same."""

import numpy as np
import pytest

from benchmarks.endings import BenchmarkError
from benchmarks.systems.expansion import CODES, LEVELS, make_identifiers, run


def test_both_formulas_find_the_same_identifiers(capsys: pytest.CaptureFixture[str]) -> None:
    run(3000, 5, 2, None)
    table = capsys.readouterr().out.splitlines()
    assert [row.split("|")[1].strip() for row in table[2:]] == ["now", "log-softmax and keys"]
    assert all(row.count(" ms |") == LEVELS for row in table[2:])


def test_identifiers_are_distinct_and_in_order_and_each_level_has_its_own_tokens() -> None:
    identifiers = make_identifiers(2000)
    assert len(np.unique(identifiers, axis=0)) == len(identifiers)
    assert np.array_equal(identifiers, identifiers[np.lexsort(identifiers.T[::-1])])
    assert np.array_equal(identifiers // CODES, np.broadcast_to(np.arange(LEVELS), identifiers.shape))


def test_a_checkout_that_is_not_there_is_told(tmp_path) -> None:
    with pytest.raises(BenchmarkError, match="no checkout of STATIC"):
        run(100, 2, 1, tmp_path)
