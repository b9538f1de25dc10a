"""The planner on machines and drafts made up for the purpose."""

import numpy as np
import pytest

from drafting.acceptance import GAPS, MEMORY, WantedGaps, within_gaps
from drafting.costs import CostCurve, ForwardCosts, RunningCurve
from drafting.plan import Action, LevelOutcome, Round, StepTimes
from drafting.planner import Planner

FAN_OUT = (90.0, 70.0, 1.7, 1.1)
WIDTHS = (1, 10, 10, 10, 10)
CHEAP_DRAFT = CostCurve(3.0, 0.01)


def planner(balance: float, draft: CostCurve | None = CHEAP_DRAFT) -> Planner:
    return Planner(ForwardCosts(CostCurve(balance, 1.0), draft), FAN_OUT)


def place(depth: int = 0, sharing: int = 1) -> Round:
    return Round(WIDTHS, depth, WIDTHS[depth], sharing)


def proposals(spacing: float) -> np.ndarray:
    return np.full(256, -1.0, np.float32) - spacing * np.arange(256, dtype=np.float32)


def outcome(depth: int, worst_rank: int, levels: int = 0, spacing: float = 0.1) -> LevelOutcome:
    ranks = np.append(np.arange(9), worst_rank)
    return LevelOutcome(depth, ranks, proposals(spacing), "strict", levels)


def test_cost_curves_are_fitted_to_measured_forwards() -> None:
    curve = CostCurve.fit([1, 10, 100, 1000], [0.0101, 0.0110, 0.0200, 0.1100])
    assert curve.fixed == pytest.approx(0.01, rel=0.02)
    assert curve.per_token == pytest.approx(1e-4, rel=0.02)
    assert curve.balance == pytest.approx(100, rel=0.04)
    assert curve.seconds(100) == pytest.approx(0.02, rel=0.02)
    with pytest.raises(ValueError, match="two sizes"):
        CostCurve.fit([5, 5], [1.0, 1.0])
    with pytest.raises(ValueError, match="negative"):
        CostCurve(-1.0, 0.0)


def test_a_level_is_accepted_within_the_gap_of_its_worst_prefix() -> None:
    gaps = WantedGaps(np.zeros(len(GAPS)))
    for _ in range(400):
        gaps.learn(outcome(1, worst_rank=14))
    chances = gaps.chances()
    # Ranks are 0.1 nats apart and the tenth is where gaps begin: rank 14 is 0.5 nats below it.
    assert chances[GAPS < 0.49].max() < 0.02
    assert chances[GAPS > 0.51].min() > 0.97
    counts = within_gaps(proposals(0.1), 10)
    assert counts[np.searchsorted(GAPS, 0.51)] in (15, 16)
    np.testing.assert_allclose(gaps.mean_counts(10), counts)


def test_what_was_learned_is_bounded_and_forgets() -> None:
    gaps = WantedGaps(np.zeros(len(GAPS)))
    for _ in range(3000):
        gaps.learn(outcome(1, worst_rank=200))
    assert gaps.seen <= MEMORY
    for _ in range(3000):
        gaps.learn(outcome(1, worst_rank=9))
    assert gaps.chances()[0] > 0.6


def test_a_prefix_that_nobody_proposed_wants_an_endless_gap() -> None:
    gaps = WantedGaps(np.ones(len(GAPS)))
    gaps.learn(LevelOutcome(1, np.array([0, -1]), proposals(0.1), "strict", 0))
    assert gaps.within.max() == 0


def test_tokens_that_cost_as_much_as_forwards_are_not_drafted() -> None:
    plan = planner(balance=0.5)
    for depth in range(4):
        assert plan.action(place(depth), has_draft=True) is Action.STOP


def test_forwards_that_cost_much_more_than_tokens_are_saved() -> None:
    assert planner(balance=2000, draft=None).action(place(), has_draft=False) is Action.CHILDREN
    plan = planner(balance=2000)
    here = place()
    assert plan.action(here, has_draft=True) is Action.BEAM
    assert plan.width(here, proposals(0.1)) > 10


def test_a_shared_forward_is_worth_less() -> None:
    alone = planner(balance=300)
    crowd = planner(balance=300)
    width = alone.width(place(), proposals(0.1))
    assert width > 10
    assert crowd.width(place(sharing=64), proposals(0.1)) < width
    assert crowd.action(place(sharing=1000), has_draft=True) is Action.STOP


def test_a_sure_draft_is_kept_narrow_and_an_unsure_one_wide() -> None:
    plan = planner(balance=300)
    assert 0 < plan.width(place(), proposals(0.5)) < plan.width(place(), proposals(0.05))


def test_a_draft_that_is_never_right_is_no_longer_asked_but_now_and_then() -> None:
    plan = planner(balance=100)
    for _ in range(100):
        plan.learn([LevelOutcome(depth, np.full(10, -1), proposals(0.1), "strict", 0) for depth in (1, 2, 3)])
    actions = [plan.action(place(1), has_draft=True) for _ in range(640)]
    assert 1 <= actions.count(Action.BEAM) <= 20


def test_a_draft_that_is_always_right_is_asked_for_every_level() -> None:
    plan = planner(balance=300)
    for _ in range(100):
        plan.learn([outcome(depth, worst_rank=11, levels=levels) for depth in (1, 2, 3) for levels in range(depth)])
    here = place()
    for depth in (1, 2, 3):
        assert plan.action(here, has_draft=True) is Action.BEAM
        width = plan.width(here, proposals(0.1))
        assert 12 <= width <= 14
        here.levels, here.nodes = depth, width
        assert here.certainty > 0.8**depth
    assert plan.action(here, has_draft=True) is Action.STOP


def test_children_are_counted_before_they_are_drafted_again() -> None:
    plan = planner(balance=50, draft=None)
    deep = place(depth=2)
    assert plan.action(deep, has_draft=False) is Action.CHILDREN
    for _ in range(200):
        plan.learn_children(Round(WIDTHS, 2, 200, 1, levels=1), parents=10, children=200)
    for _ in range(64):
        last = plan.action(place(depth=2), has_draft=False)
    assert last is Action.STOP


def test_what_the_draft_has_not_rated_is_not_continued_by_it() -> None:
    plan = planner(balance=100_000)
    here = Round(WIDTHS, 0, 90, 1, levels=1, unranked=True)
    assert plan.action(here, has_draft=True) is not Action.BEAM


def test_the_running_curve_forgets_a_wrong_start_and_shrugs_off_interruptions() -> None:
    rng = np.random.default_rng(0)
    curve = RunningCurve(CostCurve(3e-2, 4e-4))
    assert curve.curve().fixed == pytest.approx(3e-2)
    for _ in range(300):
        tokens = int(rng.choice([10, 30, 100]))
        interrupted = rng.random() < 0.05
        curve.add(1, tokens, (3e-3 + 4e-5 * tokens) * (10 if interrupted else 1))
    assert curve.curve().fixed == pytest.approx(3e-3, rel=0.1)
    assert curve.curve().per_token == pytest.approx(4e-5, rel=0.1)


@pytest.mark.parametrize("follows_clock", [True, False])
def test_a_planner_that_follows_the_clock_notices_what_forwards_really_cost(follows_clock: bool) -> None:
    """Measured beside a noisy neighbour, a forward's fixed part seemed worth 300 tokens; really it is worth none."""
    plan = Planner(ForwardCosts(CostCurve(300.0, 1.0), CHEAP_DRAFT), FAN_OUT, follows_clock)
    assert plan.action(place(), has_draft=True) is not Action.STOP
    for number in range(400):
        tokens = (10, 30, 60)[number % 3]
        plan.learn_times(StepTimes(tokens, 1.0 * tokens, 1, 10, 3.0))
    assert (plan.action(place(), has_draft=True) is Action.STOP) == follows_clock


def test_what_a_planner_remembers_is_bounded() -> None:
    plan = planner(balance=300)
    for sharing in range(1, 700):
        here = place(sharing=sharing)
        plan.action(here, has_draft=True)
        here.levels, here.nodes, here.certainty = 1, sharing, 1 / sharing
        plan.action(here, has_draft=True)
    assert len(plan._outlooks) <= 256
    assert sum(len(outlook.weighed) for outlook in plan._outlooks.values()) <= 4 * 256
