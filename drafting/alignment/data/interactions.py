"""Interactions: who met which item, in order; and the loaders and splits that make them.

Invariant: the carrier is three flat arrays (CSR: where each user's history starts, the items, their times), so memory is the id arrays
and nothing per user or per interaction; and items are catalog indices, checked when loaded, so nothing later can meet an unknown item.
All parts of a `Split` have the same users in the same order: row u is the same person everywhere.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drafting.errors import SetupError


class InteractionError(SetupError):
    """Interaction data that cannot be used; the message is a sentence that names the place."""


@dataclass(frozen=True)
class Interactions:
    """The histories of a fixed list of users, oldest item first.

    Attributes:
        users: the users' names.
        offsets: `[users + 1]` int64; user u's history is `items[offsets[u]:offsets[u + 1]]`, possibly empty.
        items: `[interactions]` int32 catalog indices.
        timestamps: `[interactions]` float64, or None where the source has no times.
    """

    users: tuple[str, ...]
    offsets: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    timestamps: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Items per user, `[users]`."""
        return np.diff(self.offsets)

    def history(self, user: int) -> npt.NDArray[np.int32]:
        """The items of one user row, oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def where(self, kept: npt.NDArray[np.bool_]) -> "Interactions":
        """The interactions marked in `kept` `[interactions]`, of the same users."""
        before = np.concatenate([[0], np.cumsum(kept)])
        times = None if self.timestamps is None else self.timestamps[kept]
        return Interactions(self.users, before[self.offsets].astype(np.int64), self.items[kept], times)

    def followed_by(self, later: "Interactions") -> "Interactions":
        """Each user's history with that of `later` after it."""
        owners = np.concatenate([np.repeat(np.arange(len(part.users)), part.lengths) for part in (self, later)])
        order = np.argsort(owners, kind="stable")
        times = None
        if self.timestamps is not None and later.timestamps is not None:
            times = np.concatenate([self.timestamps, later.timestamps])[order]
        return Interactions(self.users, self.offsets + later.offsets, np.concatenate([self.items, later.items])[order], times)


@dataclass(frozen=True)
class Split:
    """What to learn from, what to tune on and what to be judged by, of the same users in the same order."""

    train: Interactions
    valid: Interactions
    test: Interactions


def leave_one_out(interactions: Interactions) -> Split:
    """The last item of every user to test, the one before to validation, the rest to train; users of fewer than three items to train."""
    from_end = np.repeat(interactions.offsets[1:], interactions.lengths) - np.arange(len(interactions))
    long_enough = np.repeat(interactions.lengths >= 3, interactions.lengths)
    test, valid = (from_end == 1) & long_enough, (from_end == 2) & long_enough
    return Split(interactions.where(~(test | valid)), interactions.where(valid), interactions.where(test))


def by_user(
    users: tuple[str, ...], rows: npt.NDArray[np.int64], items: npt.NDArray[np.int32], timestamps: npt.NDArray[np.float64]
) -> Interactions:
    """Put loose interactions `[interactions]` (user row, item, time) in order of user and time; equal times stay as they came."""
    order = np.lexsort((timestamps, rows))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(users)))]).astype(np.int64)
    return Interactions(users, offsets, items[order], timestamps[order])
