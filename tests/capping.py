"""Lists with caps by an oracle: the walk, written out over identifiers and items."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.item_values import Cap

Identifier = tuple[int, ...]
# Identifiers with their scores, best first.
Pairs = list[tuple[Identifier, float]]
# The k best of the items that are allowed, `[items]` bool, as some search finds them.
Search = Callable[[np.ndarray], Pairs]
BRANDS = ("red", "green", "blue", "white")


def random_values(items: int, rng: np.random.Generator) -> list[Any]:
    """A value for each item: a text, a number, a list with repetitions, or none; some values are frequent."""
    few, many = rng.random(2) < 0.5
    names: list[Any] = [*BRANDS, 1, 1.0, *(range(100, 160) if many else ())]
    found: list[Any] = []
    for _ in range(items):
        kind = rng.random()
        several = [names[number] for number in rng.integers(len(names), size=int(rng.integers(0, 4)))]
        found.append(None if kind < 0.1 else several if kind < (0.15 if few else 0.6) else names[int(rng.integers(len(names)))])
    return found


def caps_of(values: Mapping[str, Sequence[Any]], at_most: Mapping[str, int]) -> tuple[Cap, ...]:
    return tuple(Cap(AttributeColumn.of_values(values[name]).item_values, most) for name, most in at_most.items())


class Walk:
    """Takes items unless one of their values is full.

    Args:
        values: of each attribute, a value for each item.
    """

    def __init__(self, identifiers: np.ndarray, values: Mapping[str, Sequence[Any]], at_most: Mapping[str, int], allowed: np.ndarray):
        self.at_most, self.allowed = at_most, allowed
        self.values = {name: [_several(value) for value in values[name]] for name in at_most}
        self.items: dict[Identifier, list[int]] = {}
        for item, row in enumerate(identifiers.tolist()):
            self.items.setdefault(tuple(row), []).append(item)
        self.counts: dict[str, Counter] = {name: Counter() for name in at_most}
        self.listed: dict[Identifier, tuple[float, list[int]]] = {}

    def is_full(self, item: int) -> bool:
        return any(self.counts[name][value] >= most for name, most in self.at_most.items() for value in self.values[name][item])

    def take(self, item: int) -> bool:
        if not self.allowed[item] or self.is_full(item):
            return False
        for name in self.at_most:
            self.counts[name].update(self.values[name][item])
        return True

    def over(self, pairs: Pairs, until: int, first: np.ndarray | None = None) -> None:
        for identifier, score in pairs:
            if len(self.listed) == until:
                return
            if identifier in self.listed:
                continue
            before = [item for item in self.items[identifier] if first is None or first[item]]
            if taken := [item for item in before if self.take(item)]:
                taken += [item for item in self.items[identifier] if item not in before and self.take(item)]
                self.listed[identifier] = (score, taken)

    def rounds(self, search: Search, found: Pairs, until: int, first: np.ndarray | None = None) -> int:
        """The walk over what was found, and over what `search` finds again without what is listed or full; returns how often it did."""
        again = 0
        while True:
            self.over(found, until, first)
            if len(self.listed) == until or not found:
                return again
            may = self.allowed.copy() if first is None else self.allowed & first
            for item in np.flatnonzero(may).tolist():
                may[item] = not self.is_full(item)
            for identifier in self.listed:
                may[self.items[identifier]] = False
            if not may.any():
                return again
            found, again = search(may), again + 1

    def ranked(self) -> list[tuple[float, list[int]]]:
        return sorted(self.listed.values(), key=lambda pair: -pair[0])


def check_caps(items: Sequence[int], values: Mapping[str, Sequence[Any]], at_most: Mapping[str, int]) -> None:
    """No list breaks a cap, whatever made it."""
    for name, most in at_most.items():
        counts = Counter(value for item in items for value in _several(values[name][item]))
        assert max(counts.values(), default=0) <= most


def _several(value: Any) -> set[Any]:
    if value is None:
        return set()
    return set(value) if isinstance(value, list) else {value}
