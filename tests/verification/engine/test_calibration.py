"""Calibration finds a machine's cost curve again, whatever the curve is like."""

from dataclasses import replace

import pytest

from drafting.plans.costs import CostCurve, ForwardCosts
from tests.speculation import Speculation
from verification.engine.calibration import measure_costs, measure_target
from verification.engine.engine import SpeculativeBeamEngine
from verification.result import StepReport


@pytest.mark.parametrize("truth", [CostCurve(0.02, 1e-4), CostCurve(0.02, 1e-4, 100.0), CostCurve(0.02, 1e-4, 500.0), CostCurve(0.02, 0.0)])
def test_forwards_are_measured_beyond_the_bend(truth: CostCurve, speculation: Speculation, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short prompts are: as many as it takes share a forward."""
    step = SpeculativeBeamEngine.step

    def timed(engine: SpeculativeBeamEngine) -> StepReport:
        report = step(engine)
        return replace(report, seconds=truth.seconds(report.tokens), draft_seconds=0.0)

    monkeypatch.setattr(SpeculativeBeamEngine, "step", timed)
    curve = measure_target(speculation.engine(4), longest_prompt=40)
    assert not curve.differs(truth, 0.1)
    assert curve.seconds(2000) == pytest.approx(truth.seconds(2000), rel=0.05)


def test_every_part_of_a_step_is_measured(speculation: Speculation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans take turns, so that a machine that slows down half-way does so for all of them."""
    truth = ForwardCosts(CostCurve(0.02, 1e-4), CostCurve(0.004, 1e-5), children=0.001, level=0.002, further_children=0.0005)
    step, taken = SpeculativeBeamEngine.step, []

    def timed(engine: SpeculativeBeamEngine) -> StepReport:
        report = step(engine)
        drafts_children = engine.plan.name == "trie" and report.accepted
        drafting = report.accepted * truth.children_of_each(report.accepted) if drafts_children else 0.0
        if report.draft_forwards:
            drafting = report.draft_forwards * truth.draft.seconds(report.draft_tokens / report.draft_forwards)
        taken.append(engine.plan.name)
        seconds = truth.target.seconds(report.tokens) + drafting + truth.level * report.accepted
        # Reading takes what a level takes, once a step at least.
        computed = truth.target.seconds(report.tokens) - truth.level
        return replace(report, seconds=seconds, draft_seconds=drafting, target_seconds=computed)

    monkeypatch.setattr(SpeculativeBeamEngine, "step", timed)
    engine = speculation.engine(4)
    costs = measure_costs(engine, longest_prompt=40)
    assert not costs.target.differs(truth.target, 0.1)
    assert not costs.draft.differs(truth.draft, 0.1)
    assert costs.further_children == pytest.approx(truth.further_children)
    assert (costs.children, costs.level) == (pytest.approx(truth.children), pytest.approx(truth.level, rel=0.05))
    turns = [name for name, before in zip(taken, ["", *taken], strict=False) if name != before]
    assert turns[:8] == ["none", "trie", "beam:10", "beam:60"] * 2
    assert engine.plan.name == "none"


def test_identifiers_of_one_token_leave_a_draft_nothing_to_cost(speculation: Speculation) -> None:
    assert measure_costs(speculation.engine(1), longest_prompt=40).draft is None
