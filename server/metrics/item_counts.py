"""`ItemCounts`: the items in the newest lists, and those that their users had met.

Invariants: (1) What is told of all items is kept up to date with each list, so that telling it takes no longer for a large catalog than for
a small one. Reason: it is told on the event loop, as often as Prometheus asks. (2) Memory is eight bytes per item of the catalog, of which
an item that was neither listed nor met touches none, and four bytes per entry of `WINDOW_LISTS` lists.
"""

from array import array
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

WINDOW_LISTS = 20_000
# The items whose share is the skew: this part of the catalog, at least one.
TOP_SHARE = 0.01


class ItemCounts:
    """How often each item of a catalog is in the newest `lists` lists, and whether a user of half as many or more had met it."""

    def __init__(self, items: int, lists: int = WINDOW_LISTS) -> None:
        self._window = lists
        self._lists: deque[array[int]] = deque()
        # Read and written one by one, which numpy is slow at.
        self._times = _per_item(items).data
        # By n, the number of items that are in the lists n times; the last number is not 0. It is short, for the n add up to all entries.
        self._items_by_times = array("q", [items])
        self._entries = 0
        # By item, the number of the half window in which it was met last: half windows are numbered from 1 on, and 0 stands for never.
        self._met = _per_item(items)
        self._half, self._since = 1, 0

    @property
    def items(self) -> int:
        """Number of items of the catalog."""
        return len(self._times)

    def extend(self, items: int) -> None:
        """Append items to the catalog, up to `items` in total."""
        self._items_by_times[0] += items - self.items
        self._times, self._met = _per_item(items, self._times).data, _per_item(items, self._met)

    def observe(self, items: Sequence[int], met: Sequence[int]) -> int:
        """Take in a list and what its user had met, by catalog index; return how many of its items no user of late had met."""
        if self._since == self._window // 2:
            self._half, self._since = self._half + 1, 0
        self._since += 1
        self._met[np.asarray(met, np.intp)] = self._half
        self._count(items)
        self._lists.append(array("I", items))
        if len(self._lists) > self._window:
            self._discount(self._lists.popleft())
        met_in = self._met[np.asarray(items, np.intp)]
        return int(np.count_nonzero(met_in < max(self._half - 1, 1)))

    @property
    def distinct(self) -> int:
        """Number of items in the lists."""
        return self.items - self._items_by_times[0]

    @property
    def top_share(self) -> float:
        """The share of all entries of the lists that belongs to the most listed 1% of the catalog; 0 without lists."""
        most_first = np.array(self._items_by_times)[:0:-1]
        # How many of the top are listed so often or more, and so often.
        listed = np.minimum(np.cumsum(most_first), max(1, int(self.items * TOP_SHARE)))
        top = int(np.diff(listed, prepend=0) @ np.arange(len(most_first), 0, -1))
        return top / self._entries if self._entries else 0.0

    def _count(self, items: Sequence[int]) -> None:
        """Count the items of a list that comes."""
        by_times, all_times = self._items_by_times, self._times
        for item in items:
            times = all_times[item]
            all_times[item] = times + 1
            by_times[times] -= 1
            if times + 1 == len(by_times):
                by_times.append(0)
            by_times[times + 1] += 1
        self._entries += len(items)

    def _discount(self, items: Sequence[int]) -> None:
        """Count the items of a list that goes no more."""
        by_times, all_times = self._items_by_times, self._times
        for item in items:
            times = all_times[item]
            all_times[item] = times - 1
            by_times[times] -= 1
            by_times[times - 1] += 1
        while len(by_times) > 1 and not by_times[-1]:
            by_times.pop()
        self._entries -= len(items)


def _per_item(items: int, known: "Sequence[int] | np.ndarray[Any, Any]" = ()) -> "np.ndarray[Any, np.dtype[np.int32]]":
    """A number for each item, that of the first ones as it is known, else 0."""
    numbers = np.zeros(items, np.int32)
    numbers[: len(known)] = known
    return numbers
