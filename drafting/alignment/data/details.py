"""What is known of interactions beside user, item and time: their kinds, values and attributes, and what was asked before them.

Invariant: all parts of a split share one table; each has the rows of it that its interactions come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from drafting.alignment.data.columns import MISSING, Column, row_values
from drafting.array_types import BoolArray, IntArray
from drafting.errors import InteractionError
from drafting.prompts.user_state import UserEvent, Value

KIND, VALUE, ATTRIBUTES, CONTEXT = "kind", "value", "attributes.", "context."


@dataclass(frozen=True, eq=False)
class EventDetails:
    """The details of interactions.

    Attributes:
        rows: `[interactions]`, the row of each in the columns.
        columns: by name: `kind`, `value`, and names that begin with `attributes.` and `context.`.
    """

    rows: IntArray
    columns: Mapping[str, Column]

    def take(self, order: IntArray | BoolArray) -> "EventDetails":
        """The details of some interactions, in this order."""
        return replace(self, rows=self.rows[order])

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the whole table."""
        column = self.columns.get(KIND)
        return tuple(map(str, column.values)) if column else ()

    def of_kind(self, kind: str) -> BoolArray:
        """Which interactions are of a kind, `[interactions]`.

        Raises:
            InteractionError: none is.
        """
        if kind not in self.kinds:
            raise InteractionError(no_kind(kind, self.kinds))
        found: BoolArray = self.columns[KIND].codes[self.rows] == self.kinds.index(kind)
        return found

    @property
    def asked(self) -> BoolArray:
        """Which interactions something was asked before, `[interactions]`."""
        found = np.zeros(len(self.rows), np.bool_)
        for column in self._context.values():
            found |= column.codes[self.rows] != MISSING
        return found

    def event(self, interaction: int, item: int, time: float | None) -> UserEvent:
        """An interaction as a prompt shows it."""
        row = int(self.rows[interaction])
        known = row_values(self._own, row)
        kind, value = known.get(KIND), known.get(VALUE)
        return UserEvent(item, kind, value, time, row_values(self._attributes, row))  # type: ignore[arg-type]

    def context(self, interaction: int) -> dict[str, Value]:
        """What was asked before an interaction."""
        return row_values(self._context, int(self.rows[interaction]))

    @cached_property
    def _own(self) -> dict[str, Column]:
        return {name: column for name, column in self.columns.items() if name in (KIND, VALUE)}

    @cached_property
    def _attributes(self) -> dict[str, Column]:
        return self._below(ATTRIBUTES)

    @cached_property
    def _context(self) -> dict[str, Column]:
        return self._below(CONTEXT)

    def _below(self, prefix: str) -> dict[str, Column]:
        return {name.removeprefix(prefix): column for name, column in self.columns.items() if name.startswith(prefix)}


def no_kind(kind: str, kinds: tuple[str, ...]) -> str:
    """The sentence that no interaction is of a kind."""
    if not kinds:
        return f"No interaction is of the kind {kind!r}: the data says no kinds at all."
    return f"No interaction is of the kind {kind!r}: those of the data are {', '.join(map(repr, sorted(kinds)))}."


def joined(first: EventDetails | None, second: EventDetails | None) -> EventDetails | None:
    """The details of the interactions of two parts of one split, one part behind the other."""
    if first is None or second is None:
        return None
    return replace(first, rows=np.concatenate([first.rows, second.rows]))
