"""A set of items of one catalog as a bitmap: the items that a filter allows.

Invariant: a set is immutable, so results derived from it may be cached with the set as their key.
"""

from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import numpy.typing as npt

from drafting.array_types import BoolArray

Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ItemSet:
    """A bitmap over the items of a catalog.

    Attributes:
        bits: `[ceil(catalog items / 8)]` uint8, the bit `item % 8` of the byte `item // 8`; bits beyond the last item are 0.
        catalog_items: number of items of the catalog.
    """

    bits: Bits
    catalog_items: int

    def __post_init__(self) -> None:
        if len(self.bits) != -(-self.catalog_items // 8):
            raise ValueError(f"A set of {self.catalog_items} items needs {-(-self.catalog_items // 8)} bytes, got {len(self.bits)}.")

    @classmethod
    def of(cls, members: BoolArray) -> "ItemSet":
        """The set of items where `members`, `[catalog items]` bool, is true."""
        return cls(np.packbits(members, bitorder="little"), len(members))

    @classmethod
    def of_items(cls, items: npt.ArrayLike, catalog_items: int) -> "ItemSet":
        """The set of items with these catalog indices."""
        members = np.zeros(catalog_items, bool)
        members[np.asarray(items, np.int64)] = True
        return cls.of(members)

    @cached_property
    def _count(self) -> int:
        return int(np.bitwise_count(self.bits).sum())

    def __len__(self) -> int:
        return self._count

    def __contains__(self, item: int) -> bool:
        return bool(self.bits[item >> 3] >> (item & 7) & 1)

    def contains(self, items: npt.NDArray[np.integer]) -> BoolArray:
        """`[items]` bool, True for each of `items` (catalog indices) that is in the set."""
        found: BoolArray = ((self.bits[items >> 3] >> (items & 7).astype(np.uint8)) & 1).astype(bool)
        return found

    def members(self) -> BoolArray:
        """The set as `[catalog items]` bool."""
        return np.unpackbits(self.bits, count=self.catalog_items, bitorder="little").view(bool)

    @property
    def complement(self) -> "ItemSet":
        """The items of the catalog that are not in the set."""
        bits = ~self.bits
        if spare := 8 * len(bits) - self.catalog_items:
            bits[-1] &= 0xFF >> spare
        return ItemSet(bits, self.catalog_items)


def intersection(sets: list[ItemSet]) -> ItemSet:
    """The intersection of one or more sets of one catalog."""
    return ItemSet(reduce(np.bitwise_and, [each.bits for each in sets]), sets[0].catalog_items)


def union(sets: list[ItemSet]) -> ItemSet:
    """The union of one or more sets of one catalog."""
    return ItemSet(reduce(np.bitwise_or, [each.bits for each in sets]), sets[0].catalog_items)
