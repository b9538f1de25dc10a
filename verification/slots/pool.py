"""Key/value slots: which of them are free, and who owns the others.

Invariant: a slot has one owner, or several that have agreed to share it and none of whom writes to it; an owner gives back exactly what it
took, and a slot is free when the last one has. This is checked at every call, because a slot that leaks or is handed out twice shows up
much later, as another user's wrong recommendations.
"""

import numpy as np

from drafting.array_types import BoolArray, IntArray


class OutOfSlots(RuntimeError):
    """More slots were asked for than are free."""


class SlotPool:
    """A stack of free slots; one slot holds the keys and values of one token in every layer.

    Attributes:
        total: number of slots.
        first: the number of the first.
    """

    def __init__(self, total: int, first: int = 0) -> None:
        """`total` slots, numbered from `first` on."""
        self.total = total
        self.first = first
        self._free = np.arange(first + total - 1, first - 1, -1, dtype=np.int64)
        self._count = total
        self._owned = np.zeros(total, bool)
        self._sharers = np.zeros(total, np.int32)

    @property
    def free(self) -> int:
        """Number of free slots."""
        return self._count

    @property
    def used(self) -> int:
        """Number of slots in use."""
        return self.total - self._count

    def allocate(self, count: int) -> IntArray:
        """Take `count` slots.

        Raises:
            OutOfSlots: fewer are free; nothing was taken.
        """
        if count > self._count:
            raise OutOfSlots(f"{count} key/value slots are needed, but only {self._count} of {self.total} are free.")
        self._count -= count
        slots = self._free[self._count : self._count + count][::-1].copy()
        self._owned[slots - self.first] = True
        return slots

    def share(self, slots: IntArray) -> None:
        """Give slots one more owner each; no slot is named twice.

        Raises:
            ValueError: one of them is not owned; nothing was shared.
        """
        indices = slots - self.first
        if not self._owned[indices].all():
            raise ValueError("A key/value slot was shared that has no owner.")
        self._sharers[indices] += 1

    def shared(self, slots: IntArray) -> BoolArray:
        """True for each slot that has several owners."""
        shared: BoolArray = self._sharers[slots - self.first] > 0
        return shared

    def release(self, slots: IntArray) -> None:
        """Give slots back; those that others share stay theirs.

        Raises:
            ValueError: one of them is not owned; nothing was given back.
        """
        if not len(slots):
            return
        if (others := self.shared(slots)).any():
            self._sharers[slots[others] - self.first] -= 1
            slots = slots[~others]
        indices = slots - self.first
        before = self._owned[indices]
        self._owned[indices] = False
        # A slot that is named twice is owned at both indices, but leaves one owner less than there should be.
        if not before.all() or np.count_nonzero(self._owned) != self.used - len(slots):
            self._owned[indices] = before
            raise ValueError("A key/value slot was released that has no owner.")
        self._free[self._count : self._count + len(slots)] = slots[::-1]
        self._count += len(slots)
