"""A column of texts as two arrays (offsets and bytes), which may lie in a memory-mapped file; there is no Python object per text.

Invariant: `data` ends with eight bytes that belong to no text. Texts are hashed and compared eight bytes at a time, all rows at once, so a
read may go beyond the end of the last text. An item is found by the hash of its name among the sorted hashes of all names and then compared
as text, so a collision never gives a wrong item; small catalogs use a dictionary, which is faster for the few names of a request.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import overload

import numpy as np
import numpy.typing as npt

from drafting.array_types import BoolArray, IntArray
from drafting.trie.arrays import offsets_of, ranges, stable_order

Words = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

_SPARE = 8
_ROWS_AT_ONCE = 1 << 18
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
# The first bytes of a word, by their number.
_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)


class TextColumn(Sequence[str]):
    """Texts by row.

    Attributes:
        offsets: `[rows + 1]` int64, where each text begins in `data`; the first is 0.
        data: `[bytes + 8]` uint8, the texts in UTF-8.
    """

    def __init__(self, offsets: IntArray, data: Bytes) -> None:
        """
        Raises:
            ValueError: the arrays do not fit together.
        """
        if not len(offsets) or len(data) != offsets[-1] + _SPARE:
            raise ValueError("Offsets and data of a text column do not fit together.")
        self.offsets = offsets
        self.data = data

    @classmethod
    def of(cls, texts: Iterable[str]) -> "TextColumn":
        """Build a column; texts may contain unpaired surrogates, as in JSON."""
        return cls.of_encoded([text.encode("utf-8", "surrogatepass") for text in texts])

    @classmethod
    def of_encoded(cls, encoded: Sequence[bytes]) -> "TextColumn":
        """Build a column from texts in UTF-8."""
        return cls.of_bytes(np.fromiter(map(len, encoded), np.int64, len(encoded)), b"".join(encoded))

    @classmethod
    def of_bytes(cls, lengths: npt.NDArray[np.integer], data: bytes) -> "TextColumn":
        """Build a column from texts in UTF-8, one after the other, and their `lengths` `[rows]` in bytes."""
        return cls(offsets_of(lengths), np.frombuffer(data + bytes(_SPARE), np.uint8))

    @classmethod
    def join(cls, columns: Sequence["TextColumn"]) -> "TextColumn":
        """Concatenate columns."""
        lengths = np.concatenate([np.zeros(0, np.int64), *(column.lengths for column in columns)])
        data = [column.data[: column.offsets[-1]] for column in columns]
        return cls(offsets_of(lengths), np.concatenate([*data, np.zeros(_SPARE, np.uint8)]))

    @property
    def lengths(self) -> IntArray:
        """`[rows]` int64, the length of each text in bytes."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> tuple[str, ...]: ...

    def __getitem__(self, row: int | slice) -> str | tuple[str, ...]:
        if isinstance(row, slice):
            first, last, step = row.indices(len(self))
            return tuple(self._texts(first, last)) if step == 1 else tuple(self[number] for number in range(first, last, step))
        if not -len(self) <= row < len(self):
            raise IndexError(f"There is no row {row} in a column of {len(self)}.")
        row %= len(self)
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _ROWS_AT_ONCE):
            yield from self._texts(first, min(first + _ROWS_AT_ONCE, len(self)))

    def _texts(self, first: int, last: int) -> list[str]:
        ends = self.offsets[first : last + 1]
        if last <= first:
            return []
        data = self.data[ends[0] : ends[-1]].tobytes()
        bounds = (ends - ends[0]).tolist()
        if data.isascii():
            text = data.decode("ascii")
            return [text[start:end] for start, end in pairwise(bounds)]
        return [data[start:end].decode("utf-8", "surrogatepass") for start, end in pairwise(bounds)]

    def texts_of(self, rows: npt.NDArray[np.integer]) -> list[str]:
        """The texts of `rows` `[n]`."""
        starts, data = self.offsets[rows], self.data.data
        ends = self.offsets[rows + 1]
        return [str(data[start:end], "utf-8", "surrogatepass") for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def take(self, rows: npt.NDArray[np.integer]) -> "TextColumn":
        """A column of the texts of `rows` `[n]`."""
        starts, lengths = self._extent(rows)
        return TextColumn(offsets_of(lengths), np.concatenate([self.data[ranges(starts, lengths)], np.zeros(_SPARE, np.uint8)]))

    def hashes(self) -> Words:
        """Hashes of the texts, `[rows]` uint64, the same in every process."""
        found = np.empty(len(self), np.uint64)
        for first in range(0, len(self), _ROWS_AT_ONCE):
            rows = slice(first, min(first + _ROWS_AT_ONCE, len(self)))
            starts, ends = self.offsets[rows.start : rows.stop], self.offsets[rows.start + 1 : rows.stop + 1]
            found[rows] = self._hash(starts, ends - starts)
        return found

    def _hash(self, starts: IntArray, lengths: IntArray) -> Words:
        total = (lengths.astype(np.uint64) + np.uint64(1)) * _MULTIPLIER
        rows = np.flatnonzero(lengths > 0)
        offset = 0
        while len(rows):
            mixed = (total[rows] ^ self._words(starts[rows] + offset, lengths[rows] - offset)) * _MULTIPLIER
            total[rows] = mixed ^ (mixed >> np.uint64(29))
            offset += 8
            rows = rows[lengths[rows] > offset]
        total *= _MULTIPLIER
        return total ^ (total >> np.uint64(32))

    def equal(self, rows: npt.NDArray[np.integer], other: "TextColumn", other_rows: npt.NDArray[np.integer]) -> BoolArray:
        """Compare the texts of `rows` `[n]` with those of `other_rows` `[n]` of another column: `[n]` bool."""
        (starts, lengths), (other_starts, other_lengths) = self._extent(rows), other._extent(other_rows)
        same: BoolArray = lengths == other_lengths
        left, offset = np.flatnonzero(same & (lengths > 0)), 0
        while len(left):
            mine = self._words(starts[left] + offset, lengths[left] - offset)
            same[left] = mine == other._words(other_starts[left] + offset, lengths[left] - offset)
            offset += 8
            left = left[same[left] & (lengths[left] > offset)]
        return same

    def sorted_rows(self) -> IntArray:
        """The rows in the order of their texts by code points, `[rows]`; rows of equal texts stand in any order."""
        order, offset = np.arange(len(self)), 0
        group = np.zeros(len(self), np.int64)
        places = np.arange(len(self))
        while len(places):
            rows = order[places]
            # Eight bytes are ordered as a number is whose first byte counts most; of texts that end there the shorter comes first.
            left = np.clip(self.offsets[rows + 1] - self.offsets[rows] - offset, 0, 9)
            words = self._words(self.offsets[rows] + offset, left).byteswap()
            ordered = np.lexsort((left, words, group[places]))
            keys = np.stack([group[places][ordered], words[ordered].view(np.int64), left[ordered]])
            order[places] = rows[ordered]
            begins = np.append(True, (keys[:, 1:] != keys[:, :-1]).any(axis=0))
            group[places] = places[begins][np.cumsum(begins) - 1]
            alone = begins & np.append(begins[1:], True)
            places, offset = places[~alone & (keys[2] == 9)], offset + 8
        return order

    def _extent(self, rows: npt.NDArray[np.integer]) -> tuple[IntArray, IntArray]:
        starts = self.offsets[rows]
        return starts, self.offsets[rows + 1] - starts

    def _words(self, starts: IntArray, lengths: IntArray) -> Words:
        """Up to eight bytes from each start as one number; bytes beyond the length are zero."""
        # As `sliding_window_view`, without its checks: most calls are for the few items of one request.
        windows = np.ndarray((len(self.data) - 7, 8), np.uint8, self.data, strides=(1, 1))
        words: Words = windows[starts].view("<u8")[:, 0]
        words &= _FIRST_BYTES[np.minimum(lengths, 8)]
        return words


def distinct(texts: TextColumn) -> tuple[npt.NDArray[np.int32], IntArray]:
    """Number the distinct texts in the order of their first appearance.

    Returns:
        the number of each row, `[rows]` int32, and the first row of each number, `[distinct]` int64.
    """
    _, first, inverse = np.unique(texts.hashes(), return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order))
    numbers, first = number[inverse], first[order]
    if not texts.equal(np.arange(len(texts)), texts, first[numbers]).all():
        # Two different texts have the same hash: somebody has looked for them.
        return _distinct_by_text(texts)
    return numbers, first


def _distinct_by_text(texts: TextColumn) -> tuple[npt.NDArray[np.int32], IntArray]:
    number: dict[str, int] = {}
    numbers = np.fromiter((number.setdefault(text, len(number)) for text in texts), np.int32, len(texts))
    return numbers, np.unique(numbers, return_index=True)[1]


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
            return self.find_column(TextColumn.of(texts))
        rows = self._row_of_name
        return np.array([rows.get(text, -1) for text in texts], np.int64)

    @cached_property
    def _row_of_name(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def find_column(self, wanted: TextColumn) -> IntArray:
        """The row of each text of a column, `[texts]` int64; -1 if there is none."""
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
