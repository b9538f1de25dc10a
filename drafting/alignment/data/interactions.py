"""Interactions of users with items, in order of time, in CSR form.

Invariant: the interactions are flat arrays (offsets of the users, items, timestamps) without a Python object per interaction. Items are
catalog indices, checked when they are loaded. All parts of a `Split` have the same users in the same order.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drafting.array_types import BoolArray, DoubleArray, IntArray
from drafting.errors import SetupError
from drafting.trie.arrays import offsets_of


class InteractionError(SetupError):
    """Interaction data cannot be used; the message is a sentence that names the place."""


@dataclass(frozen=True)
class Interactions:
    """The histories of users, oldest item first.

    Attributes:
        users: names of the users.
        offsets: `[users + 1]` int64; user u's history is `items[offsets[u]:offsets[u + 1]]`, possibly empty.
        items: `[interactions]` int32 catalog indices.
        timestamps: `[interactions]` float64; None if the source has no times.
    """

    users: tuple[str, ...]
    offsets: IntArray
    items: npt.NDArray[np.int32]
    timestamps: DoubleArray | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> IntArray:
        """Number of interactions of each user, `[users]`."""
        return np.diff(self.offsets)

    def history(self, user: int) -> npt.NDArray[np.int32]:
        """The items of a user (row number), oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def where(self, kept: BoolArray) -> "Interactions":
        """The interactions where `kept` `[interactions]` is true, with the same users."""
        times = None if self.timestamps is None else self.timestamps[kept]
        return Interactions(self.users, offsets_of(kept)[self.offsets], self.items[kept], times)

    def followed_by(self, later: "Interactions") -> "Interactions":
        """The interactions with those of `later` appended to each user's history."""
        owners = np.concatenate([np.repeat(np.arange(len(part.users)), part.lengths) for part in (self, later)])
        order = np.argsort(owners, kind="stable")
        times = None
        if self.timestamps is not None and later.timestamps is not None:
            times = np.concatenate([self.timestamps, later.timestamps])[order]
        return Interactions(self.users, self.offsets + later.offsets, np.concatenate([self.items, later.items])[order], times)


@dataclass(frozen=True)
class Split:
    """Interactions for training, validation and test, with the same users in the same order."""

    train: Interactions
    valid: Interactions
    test: Interactions


def leave_one_out(interactions: Interactions) -> Split:
    """Split: the last item of each user to test, the one before to validation, the rest to train; all of users with fewer than 3 items."""
    from_end = np.repeat(interactions.offsets[1:], interactions.lengths) - np.arange(len(interactions))
    long_enough = np.repeat(interactions.lengths >= 3, interactions.lengths)
    test, valid = (from_end == 1) & long_enough, (from_end == 2) & long_enough
    return Split(interactions.where(~(test | valid)), interactions.where(valid), interactions.where(test))


def by_user(users: tuple[str, ...], rows: IntArray, items: npt.NDArray[np.int32], timestamps: DoubleArray) -> Interactions:
    """Sort interactions `[interactions]` (user row, item, time) by user and time; equal times keep their order."""
    order = np.lexsort((timestamps, rows))
    return Interactions(users, offsets_of(np.bincount(rows, minlength=len(users))), items[order], timestamps[order])
