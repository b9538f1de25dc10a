"""Lookup of items by name, without a Python object per item in large catalogs.

Invariant: a name is found by its hash among the sorted hashes of all names and then compared as text, so a hash collision never gives a
wrong item. The arrays may lie in a memory-mapped file. Small catalogs use a dictionary, which is faster for the few names of a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from drafting.catalog.text_column import TextColumn, Words
from drafting.trie.sorting import stable_order

IntArray = npt.NDArray[np.int64]

# Up to so many names are looked up in a dictionary.
FEW_NAMES = 1 << 14


@dataclass(frozen=True)
class ItemIndex:
    """Lookup of the rows of a column of distinct texts.

    Attributes:
        names: the column.
        hashes: `[rows]` uint64, hashes of the texts in ascending order.
        rows: `[rows]` int32, the row of each hash.
    """

    names: TextColumn
    hashes: Words
    rows: npt.NDArray[np.int32]

    @classmethod
    def of(cls, names: TextColumn) -> "ItemIndex":
        """Build the lookup by sorting the hashes of the names."""
        hashes = names.hashes()
        rows = stable_order(hashes)
        return cls(names, hashes[rows], rows)

    def duplicate(self) -> int | None:
        """The first row whose text equals that of an earlier row; None if all differ."""
        later = [
            rows[self.names.equal(rows, self.names, self.rows[equal])]
            for distance in range(1, self.longest_run)
            for equal in [np.flatnonzero(self.hashes[distance:] == self.hashes[:-distance])]
            for rows in [self.rows[equal + distance]]
        ]
        found = np.concatenate(later) if later else np.empty(0, np.int32)
        return int(found.min()) if len(found) else None

    @cached_property
    def longest_run(self) -> int:
        """The largest number of names with the same hash: 1, unless hashes collide or names are equal."""
        run = 1
        while run < len(self.hashes) and (self.hashes[run:] == self.hashes[:-run]).any():
            run += 1
        return run

    def find(self, texts: Sequence[str]) -> IntArray:
        """The row of each text, `[texts]` int64; -1 if there is none."""
        if len(self.rows) > FEW_NAMES:
            return self._find_by_hash(texts)
        rows = self._row_of_name
        return np.fromiter((rows.get(text, -1) for text in texts), np.int64, len(texts))

    @cached_property
    def _row_of_name(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def _find_by_hash(self, texts: Sequence[str]) -> IntArray:
        wanted = TextColumn.of(texts)
        hashes = wanted.hashes()
        first = np.searchsorted(self.hashes, hashes)
        found = np.full(len(wanted), -1, np.int64)
        for distance in range(self.longest_run):
            position = np.minimum(first + distance, len(self.hashes) - 1)
            open_texts = np.flatnonzero((self.hashes[position] == hashes) & (found < 0))
            rows = self.rows[position[open_texts]]
            hit = self.names.equal(rows, wanted, open_texts)
            found[open_texts[hit]] = rows[hit]
        return found
