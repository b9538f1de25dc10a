"""What is known of items besides their identifiers: named attributes with values of any JSON type, stored by column.

Invariant: a column keeps each distinct value once, as JSON text, and a number per item. A condition on an attribute is therefore judged
once per distinct value, and ten million items with a country cost forty megabytes and no objects.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from drafting.catalog.text_column import TextColumn, distinct

TITLE = "title"


@dataclass(frozen=True)
class AttributeColumn:
    """One attribute of all items.

    Attributes:
        codes: `[items]` int32, the row of each item's value in `values`; -1 for items without one.
        values: the distinct values as JSON texts.
    """

    codes: npt.NDArray[np.int32]
    values: TextColumn

    @classmethod
    def of(cls, rows: npt.NDArray[np.int64], texts: TextColumn, items: int) -> "AttributeColumn":
        """A column from the JSON texts of some items.

        Args:
            rows: `[texts]`, the item of each text, ascending.
            items: how many items there are.
        """
        numbers, first = distinct(texts)
        codes = np.full(items, -1, np.int32)
        codes[rows] = numbers
        return cls(codes, texts.take(first))

    @classmethod
    def of_values(cls, values: Sequence[Any]) -> "AttributeColumn":
        """A column from one value per item; None where an item has none."""
        rows = [row for row, value in enumerate(values) if value is not None]
        return cls.of(np.array(rows, np.int64), TextColumn.of(json_text(values[row]) for row in rows), len(values))

    @classmethod
    def empty(cls, items: int) -> "AttributeColumn":
        """A column of an attribute that none of the items has."""
        return cls(np.full(items, -1, np.int32), TextColumn.of(()))

    def extended(self, values: Sequence[Any]) -> "AttributeColumn":
        """The column with further items behind its own, one value each; None where an item has none."""
        more = AttributeColumn.of_values(values)
        if not len(more.values):
            return AttributeColumn(np.concatenate([self.codes, more.codes]), self.values)
        # The values that are there are distinct and come first, so they keep their numbers.
        joined = TextColumn.join([self.values, more.values])
        numbers, first = distinct(joined)
        renumbered = np.append(numbers[len(self.values) :], np.int32(-1))[more.codes]
        return AttributeColumn(np.concatenate([self.codes, renumbered]), joined.take(first))

    def value(self, item: int) -> Any:
        """The value of an item; None if it has none."""
        code = int(self.codes[item])
        return None if code < 0 else json.loads(self.values[code])


def json_text(value: Any) -> str:
    """A value as the JSON text that columns keep: the same for equal values."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
