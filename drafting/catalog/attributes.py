"""Attributes of items, such as title or price: columns of JSON values, dictionary-encoded.

Invariant: a column stores each distinct value once, as JSON text, and an int32 per item. A condition on an attribute is therefore evaluated
once per distinct value, and there is no Python object per item.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from drafting.array_types import IntArray
from drafting.catalog.item_values import ItemValues
from drafting.catalog.json_values import MOST_LEVELS, is_encodable, json_text, untellable
from drafting.catalog.text_column import TextColumn, distinct

if TYPE_CHECKING:
    from drafting.catalog.column_values import ColumnValues

TITLE = "title"


@dataclass(frozen=True)
class AttributeColumn:
    """One attribute of all items.

    Attributes:
        codes: `[items]` int32, row of the item's value in `values`; -1 for items without a value.
        values: distinct values as JSON texts.
    """

    codes: npt.NDArray[np.int32]
    values: TextColumn

    @classmethod
    def of(cls, rows: IntArray, texts: TextColumn, items: int) -> "AttributeColumn":
        """Build a column from the JSON texts of the items that have a value.

        Args:
            rows: `[texts]`, ascending, the item of each text.
            items: number of items.
        """
        numbers, first = distinct(texts)
        codes = np.full(items, -1, np.int32)
        codes[rows] = numbers
        return cls(codes, texts.take(first))

    @classmethod
    def of_values(cls, values: Sequence[Any]) -> "AttributeColumn":
        """Build a column from one value per item; None for an item without a value."""
        return cls.of(*present_texts(values), len(values))

    @classmethod
    def empty(cls, items: int) -> "AttributeColumn":
        """A column without any value."""
        return cls(np.full(items, -1, np.int32), TextColumn.of(()))

    def extended(self, values: Sequence[Any]) -> "AttributeColumn":
        """The column with more items appended, one value each; None for an item without a value."""
        more = AttributeColumn.of_values(values)
        if not len(more.values):
            return AttributeColumn(np.concatenate([self.codes, more.codes]), self.values)
        # The old values are distinct and come first, so they keep their numbers.
        joined = TextColumn.join([self.values, more.values])
        numbers, first = distinct(joined)
        renumbered = np.append(numbers[len(self.values) :], np.int32(-1))[more.codes]
        return AttributeColumn(np.concatenate([self.codes, renumbered]), joined.take(first))

    @cached_property
    def decoded(self) -> "ColumnValues":
        """The distinct values as arrays, for comparisons."""
        # Filters alone need it, and it needs more packages than a bare GPU machine has.
        from drafting.catalog.column_values import ColumnValues

        return ColumnValues(self.values)

    @cached_property
    def item_values(self) -> ItemValues:
        """The values of each item, for caps."""
        return ItemValues.of(self.codes, *self.decoded.parts())

    def value(self, item: int) -> Any:
        """The value of an item, or None; None also for one that no client can be told, which only a catalog of earlier days may hold."""
        code = int(self.codes[item])
        try:
            value = None if code < 0 else json.loads(self.values[code])
        except (ValueError, RecursionError):
            return None
        return None if untellable(value) else value

    def values_of(self, items: IntArray) -> list[Any]:
        """The `value` of each of many items, `[items]`, decoded together."""
        codes = self.codes[items]
        present = codes >= 0
        texts = self.values.texts_of(codes[present])
        try:
            values = json.loads(f"[{','.join(texts)}]")
        except (ValueError, RecursionError):
            values = []
        is_text = set(map(type, values)) <= {str}
        is_told = is_encodable("".join(values)) if is_text else untellable(values, MOST_LEVELS + 1) is None
        if len(values) != len(texts) or not is_told:
            return [self.value(item) for item in items.tolist()]
        found = np.full(len(items), None, object)
        found[present] = np.fromiter(values, object, len(values))
        return found.tolist()


def present_texts(values: Sequence[Any]) -> tuple[IntArray, TextColumn]:
    """The rows of the values that are not None, and these values as JSON texts."""
    rows = [row for row, value in enumerate(values) if value is not None]
    return np.array(rows, np.int64), TextColumn.of(json_text(values[row]) for row in rows)
