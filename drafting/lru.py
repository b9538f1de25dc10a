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
    """A least-recently-used mapping."""

    def __init__(self, most: int, size: Callable[[Value], int] = lambda _: 1) -> None:
        """`most`: largest total size; `size`: of one value, by default 1, so that `most` counts entries."""
        self.most = most
        self._size = size
        self._held = 0
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """The value of a key, which is thereby used; None if there is none."""
        if (value := self._values.get(key)) is not None:
            self._values.move_to_end(key)
        return value

    def keep(self, key: Key, value: Value) -> Value:
        """Set the value of a key, and return it; a value that alone is larger than `most` is not kept."""
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
