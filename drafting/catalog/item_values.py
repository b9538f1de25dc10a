"""The values of one attribute by item: what an item counts for where a list may have only so many of a value.

Invariant: it is worked out once per version of the catalog, all of it before it is first asked, in arrays, and shared by all requests; what
a request asks of it costs as much as the items and values that it names. An item whose value is a list has each of its different elements,
one without the attribute has none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from drafting.array_types import BoolArray, IntArray
from drafting.trie.arrays import offsets_of, ranges


@dataclass(frozen=True, eq=False)
class ItemValues:
    """Values as numbers, by item.

    Attributes:
        codes: `[items]` int32, the row of each item; -1 for items without a value.
        offsets: `[rows + 1]` int64; the values of row r are values[offsets[r]] up to values[offsets[r + 1]].
        values: `[n]` int64, different ones within a row.
        items: `[items with a value]` int32, in the order of their rows.
        item_offsets: `[rows + 1]` int64; those of row r are items[item_offsets[r]] up to items[item_offsets[r + 1]].
        rows: `[n]` int64, in the order of their values.
        row_offsets: `[values + 1]` int64; those of value v are rows[row_offsets[v]] up to rows[row_offsets[v + 1]].
    """

    codes: npt.NDArray[np.int32]
    offsets: IntArray
    values: IntArray
    items: npt.NDArray[np.int32]
    item_offsets: IntArray
    rows: IntArray
    row_offsets: IntArray

    @classmethod
    def of(cls, codes: npt.NDArray[np.int32], rows: IntArray, values: IntArray) -> "ItemValues":
        """Build it from pairs.

        Args:
            codes: as of an `AttributeColumn`.
            rows, values: `[n]`, ascending by row, the values of each row of the column, also of one that no item has.
        """
        count = 1 + max(int(codes.max(initial=-1)), int(rows.max(initial=-1)))
        offsets = np.searchsorted(rows, np.arange(count + 1)).astype(np.int64)
        items = np.argsort(codes)[np.count_nonzero(codes < 0) :].astype(np.int32)
        item_offsets = offsets_of(np.bincount(codes[items], minlength=count))
        by_value = rows[np.argsort(values, kind="stable")]
        return cls(codes, offsets, values, items, item_offsets, by_value, offsets_of(np.bincount(values)))

    def of_items(self, items: IntArray) -> list[list[int]]:
        """The values of each of some items, `[items]` catalog indices."""
        codes = self.codes[items]
        starts = np.where(codes < 0, 0, self.offsets[codes])
        counts = np.where(codes < 0, 0, self.offsets[codes + 1] - starts)
        values, ends = self.values[ranges(starts, counts)].tolist(), np.cumsum(counts).tolist()
        return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def count(self, value: int) -> int:
        """Number of items that have a value."""
        return int(self._counts(self.rows_of(value)).sum())

    def items_with(self, value: int) -> IntArray:
        """The items that have a value, `[items]` int64."""
        rows = self.rows_of(value)
        return self.items[ranges(self.item_offsets[rows], self._counts(rows))].astype(np.int64)

    def rows_of(self, value: int) -> IntArray:
        """The rows that have a value."""
        return self.rows[self.row_offsets[value] : self.row_offsets[value + 1]]

    def _counts(self, rows: IntArray) -> IntArray:
        return self.item_offsets[rows + 1] - self.item_offsets[rows]


@dataclass(frozen=True, eq=False)
class Cap:
    """So many items of a list, at most, have any one value of an attribute."""

    values: ItemValues
    at_most: int

    def __post_init__(self) -> None:
        if self.at_most < 1:
            raise ValueError(f"A list may have at least one item of each value, got at_most = {self.at_most}.")


class CapCounts:
    """The values that are in a list so far, while it is made."""

    def __init__(self, caps: Sequence[Cap]) -> None:
        self._caps = caps
        self._counts: list[dict[int, int]] = [{} for _ in caps]
        # Values in the order in which they became full, and of the first so many of them the rows, `[rows + 1]`; no row is the last.
        self._full: list[list[int]] = [[] for _ in caps]
        self._marked = [0] * len(caps)
        self._full_rows = [np.zeros(len(cap.values.offsets), bool) for cap in caps]

    def walk(self, items: IntArray, groups: IntArray, until: int, is_first: BoolArray | None = None) -> dict[int, list[int]]:
        """Take items in their order, each unless one of its values is full, until so many groups have one.

        Args:
            items: `[items]` catalog indices.
            groups: `[items]`, ascending.
            is_first: `[items]`, those that are looked at before others of their group, of which none is taken without them; None for all.

        Returns:
            the items that were taken, by group.
        """
        taken: dict[int, list[int]] = {}
        values = list(zip(*(cap.values.of_items(items) for cap in self._caps), strict=True))
        firsts = [True] * len(items) if is_first is None else is_first.tolist()
        entries = zip(groups.tolist(), items.tolist(), values, firsts, strict=True)
        for group, members in groupby(entries, key=itemgetter(0)):
            if len(taken) == until:
                break
            mine = list(members)
            if found := [item for _, item, those, first in mine if first and self._take(those)]:
                taken[group] = found + [item for _, item, those, first in mine if not first and self._take(those)]
        return taken

    def may_take(self, items: IntArray) -> BoolArray:
        """`[items]` bool, True for each of `items` (catalog indices) of whose values none is full."""
        may = np.ones(len(items), bool)
        for number, (cap, full, rows) in enumerate(zip(self._caps, self._full, self._full_rows, strict=True)):
            for value in full[self._marked[number] :]:
                rows[cap.values.rows_of(value)] = True
            self._marked[number] = len(full)
            may &= ~rows[cap.values.codes[items]]
        return may

    def _take(self, values: Sequence[Sequence[int]]) -> bool:
        """Count an item by its values of each cap; false, and not counted, if one of them is full."""
        for cap, counts, those in zip(self._caps, self._counts, values, strict=True):
            if any(counts.get(value, 0) >= cap.at_most for value in those):
                return False
        for cap, counts, full, those in zip(self._caps, self._counts, self._full, values, strict=True):
            for value in those:
                counts[value] = counts.get(value, 0) + 1
                if counts[value] == cap.at_most:
                    full.append(value)
        return True

    def full(self) -> list[tuple[ItemValues, int]]:
        """The values that no further item may have."""
        return [(cap.values, value) for cap, full in zip(self._caps, self._full, strict=True) for value in full]
