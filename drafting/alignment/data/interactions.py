"""Interactions of users with items, in order of time, in CSR form.

Invariant: the interactions are flat arrays (offsets of the users, items, timestamps, columns of details) without a Python object per
interaction, until the prompt of one user is built. Items are catalog indices, checked when they are loaded. All parts of a `Split` have the
same users in the same order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from drafting.alignment.data.columns import Column
from drafting.alignment.data.details import EventDetails, joined
from drafting.alignment.data.profiles import Profiles
from drafting.array_types import BoolArray, DoubleArray, IntArray
from drafting.prompts.user_state import UserEvent, UserState
from drafting.trie.arrays import offsets_of


@dataclass(frozen=True)
class Interactions:
    """The histories of users, oldest item first.

    Attributes:
        users: names of the users.
        offsets: `[users + 1]` int64; user u's history is `items[offsets[u]:offsets[u + 1]]`, possibly empty.
        items: `[interactions]` int32 catalog indices.
        timestamps: `[interactions]` float64; None if the source has no times.
        details: what else the source says of them; None if nothing.
        labelled: `[interactions]`, which of them a model is to predict; None for all.
        profiles: what is known of the users for good; None if nothing.
    """

    users: tuple[str, ...]
    offsets: IntArray
    items: npt.NDArray[np.int32]
    timestamps: DoubleArray | None = None
    details: EventDetails | None = None
    labelled: BoolArray | None = None
    profiles: Profiles | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> IntArray:
        """Number of interactions of each user, `[users]`."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> IntArray:
        """The user of each interaction, `[interactions]`."""
        return np.repeat(np.arange(len(self.users)), self.lengths)

    @property
    def labels(self) -> BoolArray:
        """Which interactions a model is to predict, `[interactions]`."""
        return np.ones(len(self), np.bool_) if self.labelled is None else self.labelled

    def history(self, user: int) -> npt.NDArray[np.int32]:
        """The items of a user (row number), oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def state(self, user: int, known: IntArray, asked: int | None = None) -> UserState:
        """The state of a user (row number) as a request would bring it.

        Args:
            known: the interactions that have happened, by their positions, oldest first.
            asked: position of the interaction that followed the request, which brought its context.
        """
        context = self.details.context(asked) if self.details is not None and asked is not None else {}
        name = self.users[user]
        profile = self.profiles.of(name) if self.profiles is not None else {}
        return UserState(self._events(known), profile=profile, context=context, user_id=name)

    def _events(self, known: IntArray) -> list[UserEvent]:
        items = self.items[known].tolist()
        times = [None] * len(items) if self.timestamps is None else self.timestamps[known].tolist()
        if self.details is None:
            return [UserEvent(item, time=time) for item, time in zip(items, times, strict=True)]
        return [self.details.event(*each) for each in zip(known.tolist(), items, times, strict=True)]

    def where(self, kept: BoolArray) -> "Interactions":
        """The interactions where `kept` `[interactions]` is true, with the same users."""
        return self._taken(kept, offsets_of(kept)[self.offsets])

    def followed_by(self, later: "Interactions") -> "Interactions":
        """The interactions with those of `later`, another part of the same split, appended to each user's history."""
        order = np.argsort(np.concatenate([self.owners, later.owners]), kind="stable")
        times, labelled = None, None
        if self.timestamps is not None and later.timestamps is not None:
            times = np.concatenate([self.timestamps, later.timestamps])
        if self.labelled is not None and later.labelled is not None:
            labelled = np.concatenate([self.labelled, later.labelled])
        items, details = np.concatenate([self.items, later.items]), joined(self.details, later.details)
        both = replace(self, items=items, timestamps=times, details=details, labelled=labelled)
        return both._taken(order, self.offsets + later.offsets)

    def _taken(self, order: IntArray | BoolArray, offsets: IntArray) -> "Interactions":
        return replace(
            self,
            offsets=offsets,
            items=self.items[order],
            timestamps=None if self.timestamps is None else self.timestamps[order],
            details=None if self.details is None else self.details.take(order),
            labelled=None if self.labelled is None else self.labelled[order],
        )


@dataclass(frozen=True)
class Split:
    """Interactions for training, validation and test, with the same users in the same order."""

    train: Interactions
    valid: Interactions
    test: Interactions

    def asked(self, part: str) -> tuple[Interactions, Interactions]:
        """The interactions before a part, "valid" or "test", from which its labels are predicted; and the part."""
        return (self.train, self.valid) if part == "valid" else (self.train.followed_by(self.valid), self.test)


def leave_one_out(interactions: Interactions) -> Split:
    """Split: the last label of each user to test, the one before to validation, what is before that to training.

    What lies between the two labels is in the validation part, behind its label; what follows the last one is left out. All interactions of
    users with fewer than two labels, or with nothing before these, are in the training part.
    """
    labels = interactions.labels
    counted = np.append(0, np.cumsum(labels))
    # Labels at an interaction or after it, among those of its user.
    left = counted[np.repeat(interactions.offsets[1:], interactions.lengths)] - counted[:-1]
    second = np.flatnonzero(labels & (left == 2))
    split = np.zeros(len(interactions.users), np.bool_)
    owners = interactions.owners
    split[owners[second]] = second > interactions.offsets[owners[second]]
    test, valid = labels & (left == 1), (labels & (left == 2)) | (~labels & (left == 1))
    apart = split[owners]
    train = ~apart | (left > 2) | (~labels & (left == 2))
    return Split(interactions.where(train), interactions.where(valid & apart), interactions.where(test & apart))


def by_user(
    users: tuple[str, ...],
    rows: IntArray,
    items: npt.NDArray[np.int32],
    timestamps: DoubleArray,
    columns: Mapping[str, Column] | None = None,
) -> Interactions:
    """Sort interactions `[interactions]` (user row, item, time, details) by user and time; equal times keep their order."""
    order = np.lexsort((timestamps, rows))
    details = EventDetails(order, columns) if columns else None
    return Interactions(users, offsets_of(np.bincount(rows, minlength=len(users))), items[order], timestamps[order], details)
