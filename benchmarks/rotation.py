"""Whose turn it is among contenders that are timed side by side.

Invariant: over as many turns as there are contenders each of them is first once, so none profits from its place behind another.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def in_turn(contenders: Sequence[T], turn: int) -> list[T]:
    """The contenders in the order of a turn, as a new list; `turn` counts from 0."""
    first = turn % max(1, len(contenders))
    return [*contenders[first:], *contenders[:first]]
