"""Lists against those of plain beam search.

Invariant: lists are compared item by item; only items with equal scores may change places.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from verification.result import BeamResult

# Items whose scores are closer may change places: the same sums in another order differ by as much in float32.
TIE = 1e-5


@dataclass(frozen=True)
class Comparison:
    """Numbers of lists that equal the plain ones, that differ only in the order of equal scores, and that differ otherwise."""

    equal: int
    ties: int
    different: int
    target_forwards: float


def compare(plain: Sequence[BeamResult], results: Iterable[BeamResult]) -> Comparison:
    """Compare lists against those of plain beam search."""
    equal = ties = different = forwards = 0
    for expected, result in zip(plain, results, strict=True):
        forwards += result.usage.target_forwards
        if [item.item for item in result.items] == [item.item for item in expected.items]:
            equal += 1
        elif _differ_in_ties_only(expected, result):
            ties += 1
        else:
            different += 1
    return Comparison(equal, ties, different, forwards / len(plain))


def _differ_in_ties_only(expected: BeamResult, result: BeamResult) -> bool:
    return len(expected.items) == len(result.items) and all(
        ours.item == theirs.item or abs(ours.score - theirs.score) < TIE for ours, theirs in zip(result.items, expected.items, strict=True)
    )
