"""A prompt in parts, for those who look at it."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from drafting.array_types import IntArray


@dataclass(frozen=True, eq=False)
class PromptPart:
    """Neighbouring tokens of a prompt that have one origin.

    Attributes:
        kind: "before" and "after" the history, "item" or "separator"; in a prompt of the second form "text" or "code".
        tokens: `[tokens]` int64.
        item: catalog index of an item, where it is known; otherwise None.
    """

    kind: str
    tokens: IntArray
    item: int | None = None


def grouped(tokens: Iterable[tuple[tuple[str, int, int | None], int]]) -> list[PromptPart]:
    """Parts of tokens, each of which comes with what it is part of: kind, number of the part, item."""
    groups = groupby(tokens, lambda each: each[0])
    return [PromptPart(kind, np.array([token for _, token in group], np.int64), item) for (kind, _, item), group in groups]
