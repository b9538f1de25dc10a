"""From an item's name to its index, without an object per item where there are many.

Invariant: names are found by the sorted hashes of all names and then compared as texts, so a hash that two names share costs a second
look and never a wrong item. Both arrays can lie in a mapped file. Few names are found in a dictionary: for the handful that a request
names it is ten times as fast, and a dictionary of few is small.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from drafting.catalog.text_column import TextColumn, Words
from drafting.trie.sorting import stable_order

IntArray = npt.NDArray[np.int64]

# Up to so many names are few: their dictionary takes two megabytes and some milliseconds.
FEW_NAMES = 1 << 14


@dataclass(frozen=True)
class ItemIndex:
    """The rows of a column of distinct texts, by text.

    Attributes:
        names: the texts.
        hashes: `[rows]` uint64, their hashes in ascending order.
        rows: `[rows]` int32, the row of each hash.
    """

    names: TextColumn
    hashes: Words
    rows: npt.NDArray[np.int32]

    @classmethod
    def of(cls, names: TextColumn) -> "ItemIndex":
        """Sort the names' hashes."""
        hashes = names.hashes()
        rows = stable_order(hashes)
        return cls(names, hashes[rows], rows)

    def duplicate(self) -> int | None:
        """The first row whose text is that of an earlier row; None if all differ."""
        later = [
            rows[self.names.equal(rows, self.names, self.rows[place])]
            for distance in range(1, self.longest_run)
            for place in [np.flatnonzero(self.hashes[distance:] == self.hashes[:-distance])]
            for rows in [self.rows[place + distance]]
        ]
        found = np.concatenate(later) if later else np.empty(0, np.int32)
        return int(found.min()) if len(found) else None

    @cached_property
    def longest_run(self) -> int:
        """How many names share a hash at most: 1, unless two of them meet by accident or are the same."""
        run = 1
        while run < len(self.hashes) and (self.hashes[run:] == self.hashes[:-run]).any():
            run += 1
        return run

    def find(self, texts: Sequence[str]) -> IntArray:
        """The row of each text, `[texts]` int64; -1 where there is none."""
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
            place = np.minimum(first + distance, len(self.hashes) - 1)
            asked = np.flatnonzero((self.hashes[place] == hashes) & (found < 0))
            rows = self.rows[place[asked]]
            hit = self.names.equal(rows, wanted, asked)
            found[asked[hit]] = rows[hit]
        return found
