"""A mapping of bounded size, which forgets first what was used longest ago.

Invariant: the sizes of all that it holds are together at most `most`. It is our own because a machine with PyTorch, transformers and numpy
alone drafts and verifies too (`make gpu-day`).
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LruMap(Generic[Key, Value]):
    """What was kept last, by its keys."""

    def __init__(self, most: int, size: Callable[[Value], int] = lambda _: 1) -> None:
        """Of values of so much size together, by default of so many."""
        self.most = most
        self._size = size
        self._held = 0
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """What is kept of a key, which is thereby used."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def keep(self, key: Key, value: Value) -> Value:
        """Replace what is kept of a key, and return it; what alone is larger than `most` is not kept."""
        self.forget(key)
        if (size := self._size(value)) > self.most:
            return value
        self._values[key] = value
        self._held += size
        while self._held > self.most:
            self.forget(next(iter(self._values)))
        return value

    def forget(self, key: Key) -> None:
        """Forget one key; one that is not there is forgotten already."""
        if key in self._values:
            self._held -= self._size(self._values.pop(key))

    def clear(self) -> None:
        """Forget all."""
        self._values.clear()
        self._held = 0
