"""The window of a history: the items of it that a prompt shows.

Dropping the oldest item of a long history with every new one would change the beginning of the prompt each time. So several old items are
dropped at once: the window starts at the item with the smallest hash among the allowed first items. As long as that item is allowed, the
window starts there, however much of the history is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from drafting.array_types import IntArray

# Multiplier of Knuth's multiplicative hashing.
_MIXER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Window:
    """How many items of a history a prompt shows.

    Attributes:
        max_items: maximum number, the newest ones.
        min_items: minimum number of a history longer than `max_items`; None for half of `max_items`.
    """

    max_items: int
    min_items: int | None = None

    @property
    def starts(self) -> int:
        """Number of items of a long history at which a window may start: the oldest of its newest `max_items`."""
        fewest = self.max_items - self.max_items // 2 if self.min_items is None else self.min_items
        return self.max_items - fewest + 1

    def narrowed(self, most: int) -> "Window":
        """This window with at most so many items, and the fewest in proportion; it begins where this one does, or later."""
        if most >= self.max_items:
            return self
        return replace(self, max_items=most, min_items=max(1, (self.max_items - self.starts + 1) * most // self.max_items))

    def of(self, history: Sequence[int] | IntArray) -> Sequence[int] | IntArray:
        """The items of a history (catalog indices, oldest first) in the prompt: all, or between `min_items` and `max_items` of the newest.

        Only the newest `max_items + 1` items of the history matter.
        """
        newest = history[-self.max_items :]
        if len(newest) == len(history):
            return history
        first = np.asarray(newest[: self.starts], np.uint64)
        return newest[int(((first + np.uint64(1)) * _MIXER >> np.uint64(32)).argmin()) :]
