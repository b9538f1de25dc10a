"""Lists of an engine, and whether two of them are the same."""

import numpy as np

from verification.engine.engine import SpeculativeBeamEngine
from verification.request import BeamRequest
from verification.result import BeamResult


def alone(engine: SpeculativeBeamEngine, request: BeamRequest) -> BeamResult:
    """The list of a request that nothing runs beside."""
    engine.add(request)
    while not (finished := engine.step().finished):
        pass
    return finished[0]


def lines(result: BeamResult) -> list[tuple[int, int]]:
    """The items and ranks; scores depend on the batch in their last digits."""
    return [(item.item, item.rank) for item in result.items]


def assert_same_list(result: BeamResult, expected: BeamResult) -> None:
    """Only items closer than 1e-5 in score may change places."""
    np.testing.assert_allclose([i.score for i in result.items], [i.score for i in expected.items], atol=1e-4)
    for ours, theirs in zip(result.items, expected.items, strict=True):
        assert ours.item == theirs.item or abs(ours.score - theirs.score) < 1e-5
