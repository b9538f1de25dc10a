"""Levels: which tokens are the codes of each level of a catalog's identifiers.

Invariant: the codes of a level are its distinct tokens in ascending order, so a catalog and a tokenizer alone decide which column of a
teacher's distribution means which token; nothing of it need be stored.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LevelCodes:
    """The codes of each level.

    Attributes:
        tokens: per level, `[codes]` int64 token ids, ascending.
    """

    tokens: tuple[IntArray, ...]

    @classmethod
    def of(cls, identifiers: IntArray) -> "LevelCodes":
        """The codes that occur in `identifiers`, `[items, levels]` token ids."""
        return cls(tuple(np.unique(column) for column in identifiers.T))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes per level."""
        return tuple(len(tokens) for tokens in self.tokens)

    @cached_property
    def widest(self) -> int:
        """Codes of the largest level."""
        return max(self.sizes)

    def places(self, level: int, tokens: IntArray) -> IntArray:
        """Which code of its level each token is; the tokens must be codes of that level."""
        found: IntArray = np.searchsorted(self.tokens[level], tokens)
        return found
