"""Builder of a catalog from batches of items.

Invariant: each batch is turned into arrays at once, so no Python object of an item outlives the call that added it.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from drafting.array_types import IntArray
from drafting.catalog.attributes import TITLE, AttributeColumn, present_texts
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.json_values import MAX_ATTRIBUTES, too_many
from drafting.catalog.limits import UNLIMITED, ReadLimits
from drafting.catalog.pattern import TokenPattern
from drafting.catalog.text_column import TextColumn

# Whole numbers up to here are told apart by a float64, as which they may be stored.
MOST_EXACT = 1 << 53


class CatalogBuilder:
    """Collects items in order; `catalog` builds the catalog of all of them."""

    def __init__(self, limits: ReadLimits = UNLIMITED) -> None:
        self._limits = limits
        self._code_of: dict[str, int] = {}
        self._item_ids: list[TextColumn] = []
        self._codes: list[npt.NDArray[np.int32]] = []
        self._attributes: dict[str, list[tuple[IntArray, TextColumn]]] = {}
        self._first: tuple[str, int] | None = None
        self.items = 0

    def add(self, item_ids: Sequence[str], identifiers: Sequence[Sequence[str]], attributes: Mapping[str, Sequence[Any]]) -> None:
        """Add items.

        Args:
            attributes: by name, one value per item; None for an item without a value.

        Raises:
            CatalogError: an identifier is empty or has another length than the first.
        """
        if not item_ids:
            return
        length = self._check_lengths(item_ids, identifiers)
        flat = list(chain.from_iterable(identifiers))
        for token in dict.fromkeys(flat):
            self._code_of.setdefault(token, len(self._code_of))
        codes = np.fromiter(map(self._code_of.__getitem__, flat), np.int32, len(flat))
        texts = {name: present_texts(values) for name, values in attributes.items()}
        self.add_columns(TextColumn.of(item_ids), codes.reshape(-1, length), texts)

    def add_columns(
        self,
        item_ids: TextColumn,
        codes: npt.NDArray[np.int32],
        attributes: Mapping[str, tuple[IntArray, TextColumn]],
    ) -> None:
        """Add items given as columns.

        Args:
            codes: `[items, length]`, codes that `codes_of` returned.
            attributes: by name, the rows that have a value, ascending, and their values as JSON texts.

        Raises:
            CatalogError: the identifiers have another length than those before, or there are too many names of attributes.
        """
        self._limits.check_items(self.items + len(item_ids))
        if self._codes and codes.shape[1] != self._codes[0].shape[1]:
            raise CatalogError(
                f"Identifiers of {self._codes[0].shape[1]} and of {codes.shape[1]} tokens: all of a catalog must have the same length."
            )
        for name, (rows, texts) in attributes.items():
            if len(rows):
                self._attributes.setdefault(name, []).append((rows + self.items, texts))
        if len(self._attributes) > MAX_ATTRIBUTES:
            raise CatalogError(too_many(len(self._attributes)))
        self._item_ids.append(item_ids)
        self._codes.append(codes)
        self.items += len(item_ids)

    def codes_of(self, tokens: Sequence[str]) -> npt.NDArray[np.int32]:
        """The codes of `tokens`, `[tokens]` int32; new tokens get the next free codes."""
        return np.array([self._code_of.setdefault(token, len(self._code_of)) for token in tokens], np.int32)

    def codes_of_numbers(self, numbers: IntArray, pattern: TokenPattern) -> npt.NDArray[np.int32]:
        """The codes of the tokens that `pattern` makes of integer codes `[items, length]` of at most 2^53; the same shape."""
        length = numbers.shape[1]
        keys = numbers * length + np.arange(length)
        distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(first)
        codes = np.empty(len(distinct), np.int32)
        codes[order] = self.codes_of([pattern.token(key % length, key // length) for key in distinct[order].tolist()])
        return codes[inverse].reshape(numbers.shape)

    def catalog(self) -> Catalog:
        """Build the catalog of all items added.

        Raises:
            CatalogError: there are no items, or they do not make a catalog.
        """
        if not self.items:
            raise CatalogError("The catalog is empty: it needs at least one item.")
        attributes = {
            name: AttributeColumn.of(np.concatenate([rows for rows, _ in parts]), TextColumn.join([text for _, text in parts]), self.items)
            for name, parts in sorted(self._attributes.items())
        }
        return Catalog.of(TextColumn.join(self._item_ids), tuple(self._code_of), np.concatenate(self._codes), attributes)

    def _check_lengths(self, item_ids: Sequence[str], identifiers: Sequence[Sequence[str]]) -> int:
        first_item, length = self._first = self._first or (item_ids[0], len(identifiers[0]))
        if set(map(len, identifiers)) == {length} and length:
            return length
        for item, identifier in zip(item_ids, identifiers, strict=True):
            if not identifier:
                raise CatalogError(f"Item {item!r} has an empty identifier: it needs at least one token.")
            if len(identifier) != length:
                raise CatalogError(
                    f"The identifier of item {item!r} has {len(identifier)} tokens, but that of item {first_item!r} has {length}: "
                    "all identifiers of a catalog must have the same length."
                )
        raise CatalogError("Each item needs one identifier.")


def catalog_of(
    identifiers: Mapping[str, Sequence[str]] | Iterable[tuple[str, Sequence[str]]],
    titles: Mapping[str, str] | None = None,
    attributes: Mapping[str, Sequence[Any]] | None = None,
) -> Catalog:
    """Build a catalog from pairs of item id and identifier tokens.

    Args:
        attributes: by name, one value per item in the order of the pairs; None for an item without a value.

    Raises:
        CatalogError: no item, a duplicate item id, an empty identifier, or identifiers of different lengths.
    """
    pairs = list(identifiers.items() if isinstance(identifiers, Mapping) else identifiers)
    builder = CatalogBuilder()
    names = [item for item, _ in pairs]
    titled = {TITLE: [titles.get(item) for item in names]} if titles else {}
    builder.add(names, [identifier for _, identifier in pairs], {**titled, **(attributes or {})})
    return builder.catalog()
