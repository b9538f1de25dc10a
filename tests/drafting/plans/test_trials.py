"""Trials of what is not done because it seemed to cost too much, or because the target did not follow it."""

import pytest

from drafting.plans.costs import CostCurve, ForwardCosts
from drafting.plans.plan import Action, DraftRound
from drafting.plans.planner import Planner
from drafting.plans.running_costs import StepTimes
from drafting.plans.trials import EXPLORE_EVERY
from tests.drafting.plans.test_planner import FAN_OUT, WIDTHS, planner, start

TARGET, TRUE = CostCurve(10e-3, 30e-6), ForwardCosts(CostCurve(10e-3, 30e-6), CostCurve(2e-3, 10e-6), children=0.2e-3, level=0.3e-3)


def served(plan: Planner, rounds: int, draft: CostCurve | None, depth: int) -> list[Action]:
    """Let rounds take what they truly do; what was done for each."""
    actions = []
    for _ in range(rounds):
        action = plan.action(start(depth, tokens=60), has_draft=draft is not None)
        if action is Action.BEAM and draft is not None:
            plan.learn_times(StepTimes(100, TARGET.seconds(100) + TRUE.level, 1, 60, draft.seconds(60), levels=1))
        elif action is Action.CHILDREN:
            seconds = TARGET.seconds(100) + TRUE.level
            plan.learn_times(StepTimes(100, seconds, 0, 0, 0.0, 1, children=1, parents=1, children_seconds=TRUE.children))
        else:
            plan.learn_times(StepTimes(60, TARGET.seconds(60), 0, 0, 0.0))
        actions.append(action)
    return actions


def test_a_draft_that_was_slow_when_it_was_first_measured_is_measured_again() -> None:
    plan = Planner(ForwardCosts(TARGET, CostCurve(15e-3, 10e-6), children=1.0), FAN_OUT, follows_clock=True)
    actions = served(plan, 4000, TRUE.draft, depth=0)
    assert plan.costs.draft is not None
    assert plan.costs.draft.seconds(60) == pytest.approx(2.6e-3, rel=0.1)
    assert set(actions[-100:]) == {Action.BEAM}


def test_a_draft_that_is_slow_is_asked_in_trials_alone() -> None:
    slow = CostCurve(45e-3, 10e-6)
    plan = Planner(ForwardCosts(TARGET, slow, children=1.0), FAN_OUT, follows_clock=True)
    assert 1 <= served(plan, 4000, slow, depth=0).count(Action.BEAM) <= 4


def test_children_and_levels_that_were_slow_at_first_are_measured_again() -> None:
    for first in (ForwardCosts(TARGET, children=30e-3), ForwardCosts(TARGET, children=TRUE.children, level=30e-3)):
        plan = Planner(first, FAN_OUT, follows_clock=True)
        actions = served(plan, 4000, None, depth=2)
        assert set(actions[:1000]) == {Action.STOP}
        assert set(actions[-100:]) == {Action.CHILDREN}


@pytest.mark.parametrize("sharing", [1, 8])
def test_trials_are_as_frequent_where_few_searches_are_planned_for(sharing: int) -> None:
    """At each depth, of which those below the first are given up where no trial is due."""
    plan, tried, forwards = planner(balance=0.5), [0, 0, 0], 10 * EXPLORE_EVERY
    for _ in range(forwards * sharing):
        if not plan.drafts_for(None):
            continue
        for depth in range(3):
            here = DraftRound(WIDTHS, depth, WIDTHS[depth], sharing)
            plan.action(here, has_draft=True)
            tried[depth] += here.exploring
            if plan.gives_up(here):
                break
    assert tried == pytest.approx([10, 10, 10], abs=1)
