"""The named filters of one catalog in the engine process, and the sets that requests make of them.

Invariant: requests that choose alike get the very same set, as long as no filter in it changes, so what the engine works out from it is
worked out once; a request keeps the set that it started with, whatever becomes of the names.
"""

from collections import OrderedDict

import numpy as np

from drafting.item_set import ItemSet, intersection, union
from server.messages import FilterChoice

MOST_CHOICES = 256


class EngineFilters:
    """Filters by name."""

    def __init__(self, catalog_items: int) -> None:
        self._catalog_items = catalog_items
        self._named: dict[str, ItemSet] = {}
        self._chosen: OrderedDict[FilterChoice, ItemSet] = OrderedDict()

    def put(self, name: str, bits: bytes) -> None:
        """Gives a name to a set of items, `ItemSet.bits`, whatever it meant before."""
        self.drop(name)
        self._named[name] = ItemSet(np.frombuffer(bits, np.uint8), self._catalog_items)

    def drop(self, name: str) -> None:
        """Forgets a name, if it is known."""
        self._named.pop(name, None)
        for choice in [choice for choice in self._chosen if name in choice.names]:
            del self._chosen[choice]

    def choose(self, choice: FilterChoice) -> ItemSet:
        """What a request may be given.

        Raises:
            ValueError: a name is unknown.
        """
        if unknown := [name for name in choice.names if name not in self._named]:
            raise ValueError(f"The engine knows no filter {unknown[0]!r}.")
        if choice not in self._chosen:
            self._chosen[choice] = self._combine(choice)
            if len(self._chosen) > MOST_CHOICES:
                self._chosen.popitem(last=False)
        self._chosen.move_to_end(choice)
        return self._chosen[choice]

    def _combine(self, choice: FilterChoice) -> ItemSet:
        sets = [self._named[name] for name in choice.all]
        if choice.any:
            sets.append(union([self._named[name] for name in choice.any]) if len(choice.any) > 1 else self._named[choice.any[0]])
        sets += [self._named[name].complement for name in choice.without]
        return sets[0] if len(sets) == 1 else intersection(sets)
