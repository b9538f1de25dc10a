"""Levels: the tokens at each level of a catalog's identifiers.

Invariant: the codes of a level number its distinct token ids in ascending order, so the catalog and the tokenizer alone determine the token
of each column of a teacher's distribution.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drafting.array_types import IntArray


@dataclass(frozen=True)
class LevelCodes:
    """The codes of each level.

    Attributes:
        tokens: per level `[codes]` int64, the token ids in ascending order.
    """

    tokens: tuple[IntArray, ...]

    @classmethod
    def of(cls, identifiers: IntArray) -> "LevelCodes":
        """The codes of `identifiers`, `[items, levels]` token ids."""
        return cls(tuple(np.unique(column) for column in identifiers.T))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of codes of each level."""
        return tuple(len(tokens) for tokens in self.tokens)

    @cached_property
    def widest(self) -> int:
        """Number of codes of the largest level."""
        return max(self.sizes)

    def codes(self, level: int, tokens: IntArray) -> IntArray:
        """The code of each of `tokens`, which must be tokens of the level."""
        found: IntArray = np.searchsorted(self.tokens[level], tokens)
        return found
