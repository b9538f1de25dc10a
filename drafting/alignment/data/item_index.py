"""How names of users and items become numbers while interactions are read: by a catalog, or in the order in which they are met."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from drafting.array_types import IntArray
from drafting.errors import InteractionError


class ItemIndex(Protocol):
    """The part of a catalog that readers of interactions need."""

    def index_of(self, item_id: str, /) -> int | None:
        """The index of an item, or None if there is no such item."""

    def indices_of(self, item_ids: Sequence[str], /) -> IntArray:
        """The index of each item, `[items]` int64; -1 where there is no such item."""


def known_indices(names: Sequence[str], catalog: ItemIndex, path: Path) -> npt.NDArray[np.int32]:
    """The index of each item that a file names, `[names]` int32.

    Raises:
        InteractionError: the catalog does not have one of them.
    """
    indices = catalog.indices_of(names)
    if (missing := np.flatnonzero(indices < 0)).size:
        raise InteractionError(f"{path} names item {names[missing[0]]!r}, but the catalog has no such item.")
    return indices.astype(np.int32)


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
