"""Cost curves found again in noisy measurements, straight ones and ones that are flat at first."""

import numpy as np
import pytest

from drafting.plans.costs import CostCurve, ForwardCosts
from drafting.plans.running_costs import RunningCosts, RunningCurve, StepTimes

SIZES = (1, 8, 20, 64, 192, 384, 768, 1536)
FEW_SIZES = SIZES[:5]


def measured(curve: CostCurve, sizes: tuple[int, ...], noise: float, rng: np.random.Generator) -> list[float]:
    return [curve.seconds(tokens) * float(np.exp(noise * rng.standard_normal())) for tokens in sizes]


def test_straight_curves_are_fitted_to_measured_forwards() -> None:
    curve = CostCurve.fit([1, 10, 100, 1000], [0.0101, 0.0110, 0.0200, 0.1100])
    assert curve.fixed == pytest.approx(0.01, rel=0.02)
    assert curve.per_token == pytest.approx(1e-4, rel=0.02)
    assert curve.free == 0
    assert curve.seconds(100) == pytest.approx(0.02, rel=0.02)
    with pytest.raises(ValueError, match="two sizes"):
        CostCurve.fit([5, 5], [1.0, 1.0])
    with pytest.raises(ValueError, match="negative"):
        CostCurve(-1.0, 0.0)
    with pytest.raises(ValueError, match="free"):
        CostCurve(1.0, 1.0, -1.0)


@pytest.mark.parametrize("sizes", [SIZES, FEW_SIZES])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_noise_does_not_bend_a_straight_line(sizes: tuple[int, ...], noise: float) -> None:
    rng, bent = np.random.default_rng(0), 0
    for balance in (20.0, 50.0, 300.0) * 20:
        truth = CostCurve(1.0, 1 / balance)
        curve = CostCurve.fit(sizes, measured(truth, sizes, noise, rng))
        bent += curve.free > 0
        assert all(curve.seconds(tokens) == pytest.approx(truth.seconds(tokens), rel=4 * noise + 1e-6) for tokens in (1, 30, 100, 200))
    assert bent <= 2


@pytest.mark.parametrize(("free", "noise"), [(100.0, 0.0), (100.0, 0.02), (300.0, 0.0), (300.0, 0.05), (500.0, 0.05)])
def test_a_curve_that_is_flat_at_first_is_recovered(free: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    truth = CostCurve(0.01, 0.01 / 250, free)
    for _ in range(20):
        curve = CostCurve.fit(SIZES, measured(truth, SIZES, noise, rng))
        assert curve.free == pytest.approx(free, rel=0.1 + 5 * noise)
        assert all(
            curve.seconds(tokens) == pytest.approx(truth.seconds(tokens), rel=0.03 + 4 * noise) for tokens in (1, 100, 300, 1000, 3000)
        )


def test_a_forward_of_as_many_tokens_as_fit_into_some_time_takes_that_time() -> None:
    for curve in (CostCurve(0.01, 1e-4), CostCurve(0.01, 1e-4, 300)):
        for seconds in (0.011, 0.05, 1.0):
            assert curve.seconds(curve.tokens_within(seconds)) == pytest.approx(seconds)
        assert curve.tokens_within(0.009) == 0
        assert curve.fixed + 1000 * curve.mean_per_token(1000) == pytest.approx(curve.seconds(1000))
    assert CostCurve(0.01, 0.0).tokens_within(0.02) == float("inf")
    assert CostCurve(0.01, 1e-4, 300).mean_per_token(300) == 0


@pytest.mark.parametrize("free", [0.0, 300.0])
def test_the_running_curve_forgets_a_wrong_start_and_shrugs_off_interruptions(free: float) -> None:
    rng = np.random.default_rng(0)
    curve = RunningCurve(CostCurve(3e-2, 4e-4, free))
    assert curve.fit()[0].fixed == pytest.approx(3e-2)
    truth = CostCurve(3e-3, 4e-5, free)
    for _ in range(300):
        tokens = int(free + rng.choice([10, 30, 100]))
        curve.add(1, tokens, truth.seconds(tokens) * (10 if rng.random() < 0.05 else 1))
    assert curve.fit()[0].fixed == pytest.approx(truth.fixed, rel=0.1)
    assert curve.fit()[0].per_token == pytest.approx(truth.per_token, rel=0.1)
    assert curve.fit()[0].free == free


def test_forwards_that_are_all_flat_say_nothing_of_what_tokens_cost_beyond() -> None:
    start = CostCurve(1e-2, 4e-5, 300)
    curve = RunningCurve(start)
    for number in range(1000):
        curve.add(2, 2 * (1 + number % 300), 2 * start.fixed)
    assert not curve.fit()[0].differs(start, 0.1)


def test_each_second_of_a_step_is_counted_once() -> None:
    """Lists of two steps: one with drafts and levels to verify, one with neither. Neither makes forwards seem dearer than they are."""
    costs = ForwardCosts(CostCurve(6e-3, 2e-5), CostCurve(9e-3, 4e-5), level=2e-3)
    truth = ForwardCosts(CostCurve(4e-3, 1e-5), CostCurve(1e-3, 1e-5))
    running, differed = RunningCosts(costs), 0
    for number in range(1000):
        drafted = number % 2 == 0
        # Some steps read a prompt, too.
        tokens = (100 if drafted else 10) + (80 if number % 4 > 1 else 0)
        seconds = truth.target.seconds(tokens) + (2 * costs.level if drafted else 0.0)
        draft = (2, 20, 2 * truth.draft.seconds(10)) if drafted else (0, 0, 0.0)
        interrupted = number % 50 == 20
        asked = (1, 1.0 if interrupted else 2e-4) if drafted else (0, 1e-4)
        differed += running.add(StepTimes(tokens, seconds, *draft, 2 if drafted else 0, *asked))
    found = running.costs
    assert differed
    assert not found.target.differs(truth.target, 0.1)
    assert found.draft is not None
    assert found.draft.seconds(10) == pytest.approx(truth.draft.seconds(10), rel=0.05)
    assert found.level == pytest.approx(costs.level, rel=0.1)
    assert found.last == pytest.approx(3e-4, rel=0.1)


def test_what_drafted_steps_take_beyond_plain_ones_is_the_levels() -> None:
    """A machine on which wide trees cost more than was measured at start: one list in 64 is plain, four steps; the others take two."""
    costs = ForwardCosts(CostCurve(2e-3, 1e-5), level=4e-4)
    running, rng = RunningCosts(costs), np.random.default_rng(0)
    for number in range(2000):
        plain = number % 64 == 0
        for _ in range(4 if plain else 2):
            tokens = 10 if plain else int(rng.integers(60, 120))
            seconds = costs.target.seconds(tokens) + (0.0 if plain else 2e-3)
            running.add(StepTimes(tokens, seconds * rng.uniform(0.95, 1.05), 0, 0, 0.0, 0 if plain else 1))
    found = running.costs
    assert found.target.seconds(10) == pytest.approx(costs.target.seconds(10), rel=0.1)
    assert found.target.seconds(90) + found.level == pytest.approx(costs.target.seconds(90) + 2e-3, rel=0.1)
    assert found.level > 1e-3


def test_drafting_children_costs_what_it_takes() -> None:
    """Twice as long as was measured at first, for one search and for several together; interruptions are no part of it."""
    costs = ForwardCosts(CostCurve(2e-3, 1e-5), children=3e-4, further_children=1e-4)
    running = RunningCosts(costs)
    for number in range(400):
        parents = 1 + number % 4
        seconds = 1.0 if number % 50 == 20 else 2 * costs.children_together(1, parents)
        running.add(StepTimes(100, costs.target.seconds(100), 0, 0, 0.0, 1, children=1, parents=parents, children_seconds=seconds))
    assert running.costs.children == pytest.approx(2 * costs.children, rel=0.1)
    assert running.costs.children_of_each(4) == pytest.approx(2 * costs.children_of_each(4), rel=0.1)
