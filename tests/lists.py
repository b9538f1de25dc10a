"""Lists of an engine, and whether two of them are the same."""

from collections.abc import Hashable, Sequence

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


def assert_same_pairs(ours: Sequence[tuple[Hashable, float]], theirs: Sequence[tuple[Hashable, float]]) -> None:
    """Of names with scores, only those closer than 1e-5 in score may change places, and others as good as the last may stand at the end."""
    np.testing.assert_allclose([score for _, score in ours], [score for _, score in theirs], atol=1e-4, rtol=0)
    scores = dict(theirs)
    for (one, score), (other, its) in zip(ours, theirs, strict=True):
        # By its own score as well: that of the place is the same, whatever stands there.
        assert one == other or (abs(score - its) < 1e-5 and abs(score - scores.get(one, theirs[-1][1])) < 1e-4)


def assert_same_list(result: BeamResult, expected: BeamResult) -> None:
    """Likewise of items; those in the same place have the same rank."""
    assert_same_pairs(*([(item.item, item.score) for item in each.items] for each in (result, expected)))
    assert all(one.rank == other.rank for one, other in zip(result.items, expected.items, strict=True) if one.item == other.item)
