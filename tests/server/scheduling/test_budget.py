"""A step's tokens follow from what forwards cost, and from how far off that is."""

import pytest

from drafting.plans.costs import CostCurve
from server.scheduling.budget import StepBudget

CURVE = CostCurve(0.01, 0.0001)


@pytest.mark.parametrize(
    ("seconds", "curve", "tokens"),
    [
        (None, CURVE, 4096),
        (0.1, None, 4096),
        (0.1, CURVE, 900),
        (100.0, CURVE, 4096),
        (0.01, CURVE, 1),
        (0.001, CURVE, 1),
        (0.1, CostCurve(0.01, 0.0), 4096),
    ],
)
def test_the_budget_is_what_fits_into_the_bound(seconds: float | None, curve: CostCurve | None, tokens: int):
    assert StepBudget(4096, seconds, curve).tokens == tokens


def test_steps_that_take_longer_than_the_curve_says_shrink_the_budget_until_they_fit():
    budget = StepBudget(4096, 0.1, CURVE)
    for _ in range(200):
        budget.learn(budget.tokens, 2 * CURVE.seconds(budget.tokens))
    assert budget.tokens == pytest.approx(400, rel=0.01)
    assert 2 * CURVE.seconds(budget.tokens) == pytest.approx(0.1, rel=0.01)
    for _ in range(200):
        budget.learn(budget.tokens, CURVE.seconds(budget.tokens))
    assert budget.tokens == pytest.approx(900, rel=0.01)


def test_one_hiccup_costs_little():
    budget = StepBudget(4096, 0.1, CURVE)
    budget.learn(900, 1000.0)
    assert budget.tokens > 600


def test_a_curve_that_was_measured_on_a_machine_standing_still_does_not_make_steps_small_for_good():
    budget = StepBudget(4096, 0.1, CostCurve(100 * CURVE.fixed, 100 * CURVE.per_token))
    assert budget.tokens == 1
    for _ in range(200):
        budget.learn(budget.tokens, CURVE.seconds(budget.tokens))
    assert budget.tokens == pytest.approx(900, rel=0.01)
