"""Distinct values of an attribute as arrays, against which a comparison is evaluated for all values at once.

Invariant: a comparison costs a pass or two over arrays, however many constants it has, and needs no Python object per value: the constants
are looked up among the sorted values, not the values among the constants. What that needs (numbers, texts, elements of lists, sorted) is
made when a comparison first asks for it, in pieces, so that other threads get their turn. A value that can't be decoded equals no constant.

Numbers are compared exactly: each is a complex number, whose real part is the nearest 64-bit float and whose imaginary part is what that
float lacks of it; NumPy orders complex numbers by real part, then by imaginary part.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from drafting.array_types import BoolArray, IntArray
from drafting.catalog.json_values import json_text
from drafting.catalog.text_column import ItemIndex, TextColumn, distinct

Constant = bool | int | float | str
Numbers = npt.NDArray[np.complex128]
Decoded = TypeVar("Decoded")
Packed = TypeVar("Packed")

_ROWS_AT_ONCE = 1 << 14
# Kinds of values by the first character of their JSON; every other character begins a number.
_KINDS = {'"': "texts", "[": "lists", "{": "objects", "t": "booleans", "f": "booleans"}
_LARGEST_EXACT = 2.0**53
_UNDECODABLE = (msgspec.DecodeError, UnicodeEncodeError, RecursionError)


@dataclass(frozen=True)
class Ranked:
    """The values of one type, in order.

    Attributes:
        rows: `[n]`, rows of these values.
        ranks: `[n]`, how many different ones come before each.
    """

    rows: IntArray
    ranks: IntArray

    def ordered(self, sign: str, before: int, up_to: int) -> BoolArray:
        """`[n]` bool, whether each stands in an order to a constant, given how many different ones are less, and less or equal."""
        match sign:
            case "<":
                return self.ranks < before
            case "<=":
                return self.ranks < up_to
            case ">":
                return self.ranks >= up_to
        return self.ranks >= before


class ColumnValues:
    """Distinct values of one attribute; every comparison returns `[values]` bool, True for the values that pass."""

    def __init__(self, texts: TextColumn) -> None:
        """`texts` are the values as JSON, as `json_text` writes them."""
        self._texts = texts

    @cached_property
    def kinds(self) -> frozenset[str]:
        """The kinds of the values, in the words of a sentence, of those that occur: texts, numbers, booleans, lists, objects."""
        first = np.unique(self._texts.data[self._texts.offsets[:-1]]).tobytes().decode()
        return frozenset(_KINDS.get(initial, "numbers") for initial in first)

    def among(self, constants: Sequence[Constant]) -> BoolArray:
        """The values that equal one of the constants; a value of another type equals none."""
        found = np.zeros(len(self._texts), bool)
        numbers = [_number(constant) for constant in constants if not isinstance(constant, bool | str)]
        texts = TextColumn.of({json_text(constant) for constant in constants if isinstance(constant, bool | str)})
        if numbers:
            ranked, values = self._numbers
            places = np.searchsorted(values, numbers)
            equal = np.append(values, np.nan)[places] == numbers
            wanted = np.zeros(len(values), bool)
            wanted[places[equal]] = True
            found[ranked.rows] = wanted[ranked.ranks]
        if len(texts) and len(self._texts):
            rows = self._index.find_column(texts)
            found[rows[rows >= 0]] = True
        return found

    def ordered(self, sign: str, constant: Constant) -> BoolArray:
        """The values that stand in an order (`<`, `<=`, `>` or `>=`) to a constant: numbers to a number, texts to a text by code points."""
        found = np.zeros(len(self._texts), bool)
        if isinstance(constant, str):
            ranked, texts, order = self._strings
            before, up_to = (bisect(order, constant, key=lambda row: texts[int(row)]) for bisect in (bisect_left, bisect_right))
            found[ranked.rows] = ranked.ordered(sign, before, up_to)
        elif not isinstance(constant, bool):
            ranked, values = self._numbers
            number = _number(constant)
            before, up_to = (int(np.searchsorted(values, number, side)) for side in ("left", "right"))
            found[ranked.rows] = ranked.ordered(sign, before, up_to)
        return found

    def holding(self, constant: Constant) -> BoolArray:
        """The values that are lists with an element that equals a constant."""
        owners, numbers, elements = self._elements
        found = np.zeros(len(self._texts), bool)
        found[owners[elements.among([constant])[numbers]]] = True
        return found

    def present(self) -> BoolArray:
        """The values other than false."""
        return ~self.among([False])

    def parts(self) -> tuple[IntArray, IntArray]:
        """The parts of all values: the distinct elements of a list; any other value is its own only part.

        Returns:
            two arrays `[parts]`, ascending by the first: rows of values, and the number of the part; equal parts have one number.
        """
        owners, numbers, elements = self._elements
        alone = np.flatnonzero(self._texts.data[self._texts.offsets[:-1]] != ord("["))
        texts = TextColumn.join([self._texts.take(alone), elements._texts])
        number, first = distinct(texts) if len(owners) else (np.arange(len(texts)), np.arange(len(texts)))
        # Equal numbers may be written differently, such as 1 and 1.0.
        rows, values = ColumnValues(texts.take(first)).numbers()
        _, one, inverse = np.unique(values, return_index=True, return_inverse=True)
        same = np.arange(len(first))
        same[rows] = rows[one][inverse]
        found = same[number]
        rows = np.concatenate([alone, owners])
        keys = np.unique(rows * len(texts) + np.concatenate([found[: len(alone)], found[len(alone) :][numbers]]))
        return keys // max(1, len(texts)), keys % max(1, len(texts))

    @cached_property
    def _index(self) -> ItemIndex:
        return ItemIndex.of(self._texts)

    def numbers(self) -> tuple[IntArray, Numbers]:
        """The rows of the numbers, ascending, and the numbers; decoded anew by each call."""
        rows, pieces = self._decoded("-0123456789", float, lambda values: np.array(values, np.complex128))
        numbers: Numbers = np.concatenate([np.empty(0, np.complex128), *pieces])
        large = np.flatnonzero(np.abs(numbers.real) >= _LARGEST_EXACT)
        for start in range(0, len(large), _ROWS_AT_ONCE):
            part = large[start : start + _ROWS_AT_ONCE]
            exact = _decode_all(self._texts.take(rows[part])[:], int)
            nearest = numbers.real[part].tolist()
            numbers.imag[part] = [0 if value is None else value - int(near) for value, near in zip(exact, nearest, strict=True)]
        return rows, numbers

    @cached_property
    def _numbers(self) -> tuple[Ranked, Numbers]:
        """The numbers, and the different ones among them in order."""
        rows, numbers = self.numbers()
        different, ranks = np.unique(numbers, return_inverse=True)
        return Ranked(rows, ranks), different

    @cached_property
    def _strings(self) -> tuple[Ranked, TextColumn, IntArray]:
        """The texts, and their places in order."""
        rows, pieces = self._decoded('"', str, TextColumn.of)
        texts = TextColumn.join(pieces)
        order = texts.sorted_rows()
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        return Ranked(rows, ranks), texts, order

    @cached_property
    def _elements(self) -> tuple[IntArray, npt.NDArray[np.int32], "ColumnValues"]:
        """The elements of all lists: the row of the list of each, its number among the different ones, and these."""
        rows, pieces = self._decoded("[", list[msgspec.Raw], _flat)
        lengths = np.concatenate([np.empty(0, np.int64), *(each for each, _ in pieces)])
        numbers, first = distinct(texts := TextColumn.join([each for _, each in pieces]))
        return np.repeat(rows, lengths), numbers, ColumnValues(texts.take(first))

    def _decoded(self, initials: str, kind: type[Decoded], pack: Callable[[list[Decoded]], Packed]) -> tuple[IntArray, list[Packed]]:
        """The rows of the values that begin with one of some characters and are of a type, ascending, and these values in pieces."""
        chosen = np.isin(self._texts.data[self._texts.offsets[:-1]], np.frombuffer(initials.encode(), np.uint8))
        pieces: list[Packed] = []
        for start in range(0, len(chosen), _ROWS_AT_ONCE):
            part = chosen[start : start + _ROWS_AT_ONCE]
            if part.any():
                values = _decode_all(list(compress(self._texts[start : start + len(part)], part)), kind)
                part[part] = [value is not None for value in values]
                pieces.append(pack([value for value in values if value is not None]))
        return np.flatnonzero(chosen), pieces


def _flat(lists: list[list[msgspec.Raw]]) -> tuple[IntArray, TextColumn]:
    """The length of each list, and the elements of all."""
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    return lengths, TextColumn.of_encoded([bytes(element) for elements in lists for element in elements])


def _decode_all(texts: Sequence[str], kind: type[Decoded]) -> list[Decoded] | list[Decoded | None]:
    """Each text decoded; None for those that are not JSON of the type."""
    try:
        values: list[Decoded] = msgspec.json.decode(f"[{','.join(texts)}]", type=list[kind])  # type: ignore[valid-type]
    except _UNDECODABLE:
        return [_decode(text, kind) for text in texts]
    return values if len(values) == len(texts) else [_decode(text, kind) for text in texts]


def _decode(text: str, kind: type[Decoded]) -> Decoded | None:
    try:
        return msgspec.json.decode(text, type=kind)
    except _UNDECODABLE:
        return None


def _number(value: int | float) -> complex:
    """A number as the nearest float and what is missing to it; nothing is missing to a float."""
    nearest = float(value)
    return complex(nearest, value - int(nearest) if isinstance(value, int) else 0)
