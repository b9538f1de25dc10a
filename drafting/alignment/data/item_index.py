"""How names of users and items become numbers while interactions are read: by a catalog, or in the order in which they are met."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from drafting.array_types import IntArray


class ItemIndex(Protocol):
    """The part of a catalog that readers of interactions need."""

    def index_of(self, item_id: str, /) -> int | None:
        """The index of an item, or None if there is no such item."""

    def indices_of(self, item_ids: Sequence[str], /) -> IntArray:
        """The index of each item, `[items]` int64; -1 where there is no such item."""


class MetNames:
    """Takes every name, and numbers them as they are met."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """The names, by number."""
        return list(self._numbers)

    def index_of(self, name: str) -> int:
        """The number of a name, a new one if it has none."""
        return self._numbers.setdefault(name, len(self._numbers))

    def indices_of(self, names: Sequence[str]) -> IntArray:
        """The number of each name, `[names]` int64."""
        return np.array([*map(self.index_of, names)], np.int64)
