"""Names of users and of items while they are read, once each."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from drafting.alignment.data.item_index import MetNames

_WHOLE = re.compile(r"-?\d+")
_WHOLE_FLOAT = re.compile(r"-?\d+\.0+")


class Names(MetNames):
    """Names in columns, and their numbers."""

    def numbers(self, column: Any) -> npt.NDArray[np.int32]:
        """The numbers of a column of texts without nulls."""
        encoded = pc.dictionary_encode(column)
        numbers: npt.NDArray[np.int32] = self.indices_of(encoded.dictionary.to_pylist()).astype(np.int32)[encoded.indices.to_numpy()]
        return numbers


def whole(name: str) -> str:
    """A whole number that was written as a float, as pandas does where some are missing, as what it is; other names as they are."""
    return name.partition(".")[0] if _WHOLE_FLOAT.fullmatch(name) else name


def with_whole_numbers(names: Sequence[str], numbers: npt.NDArray[np.int32]) -> tuple[list[str], npt.NDArray[np.int32], list[str]]:
    """Strip the `.0` that pandas writes behind whole-number ids, if all ids are numbers or one occurs with and without it.

    Args:
        names: by number.
        numbers: `[n]`, of names.

    Returns:
        the names; `[n]`, of those; and the names that were floats.
    """
    floats = [name for name in names if _WHOLE_FLOAT.fullmatch(name)]
    known = frozenset(names)
    if not floats or not (all(map(_is_whole, names)) or any(whole(name) in known for name in floats)):
        return list(names), numbers, []
    new = MetNames()
    places = new.indices_of([*map(whole, names)]).astype(np.int32)
    return new.names, places[numbers], floats


def _is_whole(name: str) -> bool:
    return _WHOLE.fullmatch(whole(name)) is not None
