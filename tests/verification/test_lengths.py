"""The beam width of a request that names none, and widths that make no list."""

import numpy as np
import pytest

from drafting.beam.rule import SERVED_BEAM_WIDTH, STRICT, SearchRule, Verification
from drafting.plans.fixed_plan import FixedPlan
from verification.lengths import beam_width_for, check_lengths
from verification.request import BeamRequest

RELAXED = SearchRule(Verification.RELAXED, 3)
GUMBEL = SearchRule(Verification.GUMBEL, 3)


def test_a_strict_list_is_searched_wider_than_it_is_long_and_a_sample_is_not():
    assert [beam_width_for(k, STRICT) for k in (1, 10, 49, 50, 51, 100)] == [50, 50, 50, 50, 51, 100]
    assert [beam_width_for(k, rule) for rule in (GUMBEL, RELAXED) for k in (1, 10, 100)] == [1, 10, 100] * 2
    assert [beam_width_for(k, STRICT, least=1) for k in (1, 10, 100)] == [1, 10, 100]


def test_the_width_is_never_beyond_the_plan_but_for_a_longer_list_and_always_allowed():
    random = np.random.default_rng(0)
    for k, least, widest in random.integers(1, 257, size=(300, 3)).tolist():
        width = beam_width_for(k, STRICT, least, widest)
        check_lengths(k, width)
        assert width in {k, least, widest}
        assert width <= max(k, widest)
        assert width >= min(least, widest)
        assert beam_width_for(k, STRICT, least, None) == max(k, least)


@pytest.mark.parametrize(("plan", "widest"), [("none", None), ("trie", None), ("beam:40", 40), ("beam:40x2", 40), ("beam:20+children", 20)])
def test_a_plan_refuses_what_is_wider_than_its_widest_beam_and_nothing_else(plan: str, widest: int | None):
    fixed = FixedPlan.parse(plan)
    assert fixed.widest_beam == widest
    for width in (1, 20, 21, 40, 41, 256):
        assert (fixed.refusal(width) is None) == (widest is None or width <= widest)
    assert fixed.refusal(beam_width_for(5, STRICT, SERVED_BEAM_WIDTH, fixed.widest_beam)) is None


@pytest.mark.parametrize("k", [0, 2001, 2.5, True, "3"])
def test_a_list_of_no_length_has_no_width(k: object):
    with pytest.raises(ValueError, match="k"):
        beam_width_for(k, STRICT)


def test_no_level_of_an_exact_sample_keeps_fewer_prefixes_than_are_drawn():
    for rule in (STRICT, RELAXED):
        BeamRequest("narrow above", np.array([1]), 5, 9, rule=rule, beam_widths=(4, 9))
    BeamRequest("as wide as it is long", np.array([1]), 5, 9, rule=GUMBEL, beam_widths=(5, 9))
    with pytest.raises(ValueError, match=r"beam_widths of a gumbel list must be at least k, .* no exact sample, got \[4, 9\] and k = 5\.$"):
        BeamRequest("narrow above", np.array([1]), 5, 9, rule=GUMBEL, beam_widths=(4, 9))
