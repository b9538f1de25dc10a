"""The table of allowed tokens without some items, against the table of all others."""

import numpy as np
import pytest

from verification.evaluation.generate import PrefixTable


@pytest.mark.parametrize("seed", range(6))
def test_without_items_is_the_table_of_the_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Few codes, so that items share identifiers.
    identifiers = rng.integers(3 + seed, size=(60, 3))
    table = PrefixTable(identifiers)
    for count in (0, 1, 7, 40):
        gone = rng.permutation(60)[:count]
        others = PrefixTable(np.delete(identifiers, gone, axis=0))
        left = table.without(gone.tolist() * 2)
        for prefix, tokens in others.next.items():
            assert left.next[prefix] == tokens
        # Prefixes that lead nowhere any more are not led to, or have nothing behind them.
        assert all(not left.next[prefix] or prefix in others.next for prefix in left.next)
    assert table.next == PrefixTable(identifiers).next, "the table itself is as it was"
