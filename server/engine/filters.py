"""The named filters of one catalog in the engine process, its fresh items, and the sets that requests make of them.

Invariant: equal choices get the very same set, as long as no filter in it changes, so what the engine derives from it is derived once; a
request keeps the set that it started with when a name is given a new meaning.
"""

import numpy as np
from cachetools import LRUCache

from drafting.catalog.freshness import Days, added_since
from drafting.trie.item_set import ItemSet, intersection, union
from server.submit import FilterChoice

MOST_CHOICES = 256

# What a request chooses by: filters, and the day since which items are fresh, if that matters.
_Choice = tuple[FilterChoice | None, int | None]


class EngineFilters:
    """Filters by name."""

    def __init__(self, catalog_items: int, added_days: Days | None = None) -> None:
        """`added_days` is the day that each item came on, `[catalog items]`; None if none of them says so."""
        self._catalog_items = catalog_items
        self._added_days = added_days
        self._named: dict[str, ItemSet] = {}
        self._chosen: LRUCache[_Choice, ItemSet] = LRUCache(MOST_CHOICES)

    def put(self, name: str, bits: bytes) -> None:
        """Give a name to a set of items, `ItemSet.bits`, in place of what it meant before."""
        self.drop(name)
        self._named[name] = ItemSet(np.frombuffer(bits, np.uint8), self._catalog_items)

    def drop(self, name: str) -> None:
        """Forget a name, if it is known."""
        self._named.pop(name, None)
        for choice in [choice for choice in self._chosen if choice[0] is not None and name in choice[0].names]:
            del self._chosen[choice]

    def find(self, choice: FilterChoice | None, since: int | None = None) -> ItemSet:
        """The items that a request may get; with `since`, those of them that have come since that day, in days since 1970.

        Raises:
            ValueError: a name is unknown, or no item says when it came.
        """
        if (found := self._chosen.get((choice, since))) is None:
            found = self._chosen[choice, since] = self._work_out(choice, since)
        return found

    def _work_out(self, choice: FilterChoice | None, since: int | None) -> ItemSet:
        if choice is not None and since is not None:
            return intersection([self.find(choice), self.find(None, since)])
        if choice is None:
            if self._added_days is None or since is None:
                raise ValueError("No item of the engine's catalog says when it came.")
            return added_since(self._added_days, since)
        if unknown := [name for name in choice.names if name not in self._named]:
            raise ValueError(f"The engine knows no filter {unknown[0]!r}.")
        return self._combine(choice)

    def _combine(self, choice: FilterChoice) -> ItemSet:
        sets = [self._named[name] for name in choice.all]
        if choice.any:
            sets.append(union([self._named[name] for name in choice.any]) if len(choice.any) > 1 else self._named[choice.any[0]])
        sets += [self._named[name].complement for name in choice.without]
        return sets[0] if len(sets) == 1 else intersection(sets)
