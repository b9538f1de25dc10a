"""The difference of two catalogs, item by item.

Invariant: items are compared by name, identifiers by the texts of their tokens and attributes by their values, so that neither the order of
items nor the numbering of tokens makes a difference; whole columns are compared at a time.
"""

from dataclasses import dataclass

import numpy as np

from drafting.array_types import BoolArray, IntArray
from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.catalog import Catalog


@dataclass(frozen=True)
class CatalogDifference:
    """The changes from an old catalog to a new one, each as indices in ascending order.

    Attributes:
        added: indices in the new catalog of items that the old one does not have.
        removed: indices in the old catalog of items that the new one does not have.
        moved: indices in the new catalog of items that had another identifier.
        described: indices in the new catalog of items that had another title or attribute.
    """

    added: IntArray
    removed: IntArray
    moved: IntArray
    described: IntArray


def difference(old: Catalog, new: Catalog) -> CatalogDifference:
    """The changes that turn `old` into `new`."""
    was = old.index.find_column(new.item_ids)
    stays = np.flatnonzero(was >= 0)
    before = was[stays]
    is_left = np.ones(len(old), bool)
    is_left[before] = False
    return CatalogDifference(
        added=np.flatnonzero(was < 0),
        removed=np.flatnonzero(is_left),
        moved=stays[_moved(old, before, new, stays)],
        described=stays[_described(old, before, new, stays)],
    )


def _moved(old: Catalog, before: IntArray, new: Catalog, after: IntArray) -> BoolArray:
    """`[items]` bool, which of the same items, rows `before` and `after`, have another identifier."""
    if old.identifier_length != new.identifier_length:
        return np.ones(len(after), bool)
    number = {token: code for code, token in enumerate(new.tokens)}
    renumbered = np.array([number.get(token, -1) for token in old.tokens], np.int64)
    moved = np.zeros(len(after), bool)
    for level in range(new.identifier_length):
        moved |= renumbered[old.codes[before, level]] != new.codes[after, level]
    return moved


def _described(old: Catalog, before: IntArray, new: Catalog, after: IntArray) -> BoolArray:
    """`[items]` bool, which of the same items have another value of any attribute."""
    described = np.zeros(len(after), bool)
    for name in old.attributes.keys() | new.attributes.keys():
        was, is_now = (catalog.attributes.get(name) or AttributeColumn.empty(len(catalog)) for catalog in (old, new))
        codes, codes_now = was.codes[before], is_now.codes[after]
        described |= (codes < 0) != (codes_now < 0)
        both = np.flatnonzero((codes >= 0) & (codes_now >= 0))
        described[both] |= ~was.values.equal(codes[both], is_now.values, codes_now[both])
    return described
