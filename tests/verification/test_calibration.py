"""Calibration finds a machine's cost curve again, whatever the curve is like."""

from dataclasses import replace
from pathlib import Path

import pytest

from drafting.costs import CostCurve
from tests.speculation import Speculation
from verification.calibration import measure_target
from verification.engine import SpeculativeBeamEngine
from verification.request import StepReport


@pytest.fixture(scope="module")
def speculation(tmp_path_factory: pytest.TempPathFactory) -> Speculation:
    return Speculation(Path(tmp_path_factory.mktemp("calibration")))


@pytest.mark.parametrize("truth", [CostCurve(0.02, 1e-4), CostCurve(0.02, 1e-4, 100.0), CostCurve(0.02, 1e-4, 500.0), CostCurve(0.02, 0.0)])
def test_forwards_are_measured_beyond_the_bend(truth: CostCurve, speculation: Speculation, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short prompts are: as many as it takes share a forward."""
    step = SpeculativeBeamEngine.step

    def timed(engine: SpeculativeBeamEngine) -> StepReport:
        report = step(engine)
        return replace(report, seconds=truth.seconds(report.tokens), draft_seconds=0.0)

    monkeypatch.setattr(SpeculativeBeamEngine, "step", timed)
    curve = measure_target(speculation.engine(4), longest_prompt=40)
    assert not curve.differs(truth)
    assert curve.seconds(2000) == pytest.approx(truth.seconds(2000), rel=0.05)
