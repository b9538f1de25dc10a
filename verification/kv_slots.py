"""Key/value slots: which of them are free, and who owns the others.

Invariant: a slot has at most one owner, and an owner gives back exactly what it took. Both are checked at every call, because a slot that
leaks or is owned twice shows up much later, as another user's wrong recommendations.
"""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


class OutOfSlots(RuntimeError):
    """More slots were asked for than are free."""


class SlotPool:
    """A stack of free slots; one slot holds the keys and values of one token in every layer."""

    def __init__(self, total: int, first: int = 0) -> None:
        """`total` slots, numbered from `first` on."""
        self.total = total
        self._first = first
        self._free = np.arange(first + total - 1, first - 1, -1, dtype=np.int64)
        self._count = total
        self._owned = np.zeros(total, bool)

    @property
    def free(self) -> int:
        """How many slots nobody owns."""
        return self._count

    @property
    def used(self) -> int:
        """How many slots are owned."""
        return self.total - self._count

    def allocate(self, count: int) -> IntArray:
        """Takes `count` slots.

        Raises:
            OutOfSlots: fewer are free; nothing was taken.
        """
        if count > self._count:
            raise OutOfSlots(f"{count} key/value slots are needed, but only {self._count} of {self.total} are free.")
        self._count -= count
        slots = self._free[self._count : self._count + count][::-1].copy()
        self._owned[slots - self._first] = True
        return slots

    def release(self, slots: IntArray) -> None:
        """Gives slots back.

        Raises:
            ValueError: one of them is not owned; nothing was given back.
        """
        places = slots - self._first
        before = self._owned[places]
        self._owned[places] = False
        # A slot that is named twice is owned at both places, but leaves one owner less than there should be.
        if not before.all() or np.count_nonzero(self._owned) != self.used - len(slots):
            self._owned[places] = before
            raise ValueError("A key/value slot was released that nobody owns.")
        self._free[self._count : self._count + len(slots)] = slots[::-1]
        self._count += len(slots)
