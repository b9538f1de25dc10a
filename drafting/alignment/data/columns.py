"""Columns of values that are known of interactions and of users, each different value kept once.

Invariant: a value comes out as it was given, with its type: a prompt writes 5, 5.0 and true in different ways. A value that is missing
(null, or NaN, as pandas writes it) is None, and no row costs a Python object.
"""

import math
from array import array
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drafting.catalog.json_values import json_text
from drafting.errors import InteractionError
from drafting.prompts.user_state import Value

MISSING = -1


@dataclass(frozen=True, eq=False)
class Column:
    """One value for each row, or none.

    Attributes:
        codes: `[rows]` int32, the position of each row's value; -1 where there is none.
        values: the different values.
    """

    codes: npt.NDArray[np.int32]
    values: tuple[Value, ...]

    def __getitem__(self, row: int) -> Value | None:
        """The value of a row."""
        code = int(self.codes[row])
        return None if code == MISSING else self.values[code]


class ColumnBuilder:
    """Collects the values of a column, row by row or by many rows."""

    def __init__(self, name: str) -> None:
        """Begin the column `name`, which sentences about its values mention."""
        self._name = name
        self._codes = array("i")
        self._code_of: dict[Hashable, int] = {}
        self._values: list[Value] = []

    def add(self, row: int, value: object) -> None:
        """Set the value of a row behind all before it; rows that are passed over have none.

        Raises:
            InteractionError: the value is no text, number, boolean or list of these.
        """
        self._pad(row)
        self._codes.append(self._code(value))

    def extend(self, row: int, codes: npt.NDArray[np.integer], values: Sequence[object]) -> None:
        """Set the values of rows from `row` on: for each of them its position in `values`, or -1.

        Raises:
            InteractionError: as `add`.
        """
        self._pad(row)
        # The last place is that of -1.
        own = np.array([*map(self._code, values), MISSING], np.int32)
        self._codes.frombytes(own[codes].tobytes())

    def column(self, rows: int) -> Column:
        """The column of so many rows."""
        self._pad(rows)
        return Column(np.array(self._codes, np.int32), tuple(self._values))

    def _pad(self, rows: int) -> None:
        self._codes.extend([MISSING] * (rows - len(self._codes)))

    def _code(self, value: object) -> int:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return MISSING
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, str | int | float) for part in parts):
            raise InteractionError(f"{self._name} is a text, a number, a boolean or a list of these, got a {type(value).__name__}.")
        key = json_text(value) if isinstance(value, list) else (type(value), value)
        code = self._code_of.setdefault(key, len(self._values))
        if code == len(self._values):
            self._values.append(value)  # type: ignore[arg-type]
        return code


class TableBuilder:
    """Collects columns by name, which are known when they are first met."""

    def __init__(self) -> None:
        self._builders: dict[str, ColumnBuilder] = {}

    def __getitem__(self, name: str) -> ColumnBuilder:
        """The column of a name."""
        if name not in self._builders:
            self._builders[name] = ColumnBuilder(name)
        return self._builders[name]

    def columns(self, rows: int) -> dict[str, Column]:
        """All columns, of so many rows each."""
        return {name: builder.column(rows) for name, builder in self._builders.items()}


def row_values(columns: Mapping[str, Column], row: int) -> dict[str, Value]:
    """The values of a row by the names of their columns, without those that are missing."""
    found = ((name, column[row]) for name, column in columns.items())
    return {name: value for name, value in found if value is not None}
