"""`ItemCounts`: the items in the newest lists, and those that their users had met.

Invariants: (1) What is told of all items is kept up to date with each list, so that telling it takes no longer for a large catalog than for
a small one. Reason: it is told on the event loop, as often as Prometheus asks. (2) Memory is eight bytes per item of the catalog, of which
an item that was neither listed nor met touches none, and the items of `WINDOW_LISTS` lists.
"""

from array import array
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np

WINDOW_LISTS = 20_000
# The items whose share is the skew: this part of the catalog, at least one.
TOP_SHARE = 0.01


class ItemCounts:
    """How often each item of a catalog is in the newest `lists` lists, and whether a user of half as many or more had met it."""

    def __init__(self, items: int, lists: int = WINDOW_LISTS) -> None:
        self._window = lists
        self._lists: deque[array[int]] = deque()
        self._times = _per_item(items)
        # By how often: so many items are in the lists. There are few such numbers, for they add up to all entries.
        self._items_by_times: Counter[int] = Counter()
        self._entries = 0
        # The half windows are numbered from 1 on; of each item that in which it was met last, 0 for never.
        self._met = _per_item(items)
        self._half, self._since = 1, 0

    @property
    def items(self) -> int:
        """Number of items of the catalog."""
        return len(self._times)

    def extend(self, items: int) -> None:
        """Append items to the catalog, up to `items` in total."""
        self._times, self._met = (_per_item(items, known) for known in (self._times, self._met))

    def observe(self, items: Sequence[int], met: Sequence[int]) -> int:
        """Take in a list and what its user had met, by catalog index; return how many of its items no user of late had met."""
        if self._since == self._window // 2:
            self._half, self._since = self._half + 1, 0
        self._since += 1
        half, met_in = self._half, self._met
        for item in met:
            met_in[item] = half
        if len(self._lists) == self._window:
            self._count(self._lists.popleft(), -1)
        self._lists.append(array("I", items))
        self._count(items, 1)
        return sum(met_in[item] < half - 1 or not met_in[item] for item in items)

    @property
    def distinct(self) -> int:
        """Number of items in the lists."""
        return self._items_by_times.total()

    @property
    def top_share(self) -> float:
        """The share of all entries of the lists that belongs to the most listed 1% of the catalog; 0 without lists."""
        left, top = max(1, int(self.items * TOP_SHARE)), 0
        for times in sorted(self._items_by_times, reverse=True):
            taken = min(left, self._items_by_times[times])
            left, top = left - taken, top + taken * times
        return top / self._entries if self._entries else 0.0

    def _count(self, items: Sequence[int], change: int) -> None:
        """Count the items of a list that comes (`change` 1) or goes (-1)."""
        by_times, all_times = self._items_by_times, self._times
        for item in items:
            before = all_times[item]
            all_times[item] = after = before + change
            for times, more in ((before, -1), (after, 1)):
                if times:
                    by_times[times] += more
            if before and not by_times[before]:
                del by_times[before]
        self._entries += change * len(items)


def _per_item(items: int, known: Sequence[int] = ()) -> "memoryview[int]":
    """A number for each item, that of the first ones as it is known, else 0; read and written one by one, which numpy is slow at."""
    numbers = np.zeros(items, np.int32)
    numbers[: len(known)] = known
    return numbers.data
