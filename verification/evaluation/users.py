"""The users of an evaluation: their histories and their held-out items.

Invariant: labels are in no history or count that a recommender may use.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drafting.alignment.data.interactions import Interactions, Split
from drafting.alignment.data.windows import Windows, next_windows
from drafting.array_types import BoolArray
from drafting.errors import InteractionError
from drafting.prompts.user_state import STORED_EVENTS, UserState

PARTS = ("test", "valid")
# Validation users that settings of models in closed form, and of neural baselines, are chosen by, at most: each of them is ranked once for
# every setting, and a million would take days.
CHOOSING_USERS = 10_000


@dataclass(frozen=True)
class HeldOut:
    """Users with a history and held-out items.

    Attributes:
        known: interactions of all users that recommenders may use.
        joined: these, and the held-out ones behind them.
        windows: for each user, the interactions that a store knows when the list is asked for, and the first label behind them.
        labels: distinct held-out items of each user.
        warm: `[users]` bool, True for users with a label that occurs in `known`.
    """

    known: Interactions
    joined: Interactions
    windows: Windows
    labels: list[list[int]]
    warm: BoolArray

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def histories(self) -> list[list[int]]:
        """Catalog indices of each user's history, as far as it is stored, oldest first."""
        spans = zip(self.windows.first.tolist(), self.windows.last.tolist(), strict=True)
        return [self.joined.items[first:last].tolist() for first, last in spans]

    def states(self, users: Sequence[int] | None = None) -> Iterator[UserState]:
        """The state of each user, or of some, one at a time."""
        for user in range(len(self)) if users is None else users:
            owner, first, last = int(self.windows.owners[user]), int(self.windows.first[user]), int(self.windows.last[user])
            yield self.joined.state(owner, np.arange(first, last), last)

    def spread(self, count: int) -> list[int]:
        """`count` users, spread evenly; all users if there are fewer."""
        users: list[int] = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)).tolist()
        return users


def held_out(split: Split, part: str = "test", most: int | None = None) -> HeldOut:
    """The users of a part: test items given train and validation, or validation items given train.

    Args:
        most: maximum number of users, spread evenly.

    Raises:
        InteractionError: no user has a history and held-out items.
    """
    known, later = split.asked(part)
    joined, windows = next_windows(known, later, STORED_EVENTS)
    if not len(windows.owners):
        raise InteractionError(f"There are no users to evaluate: no user has {part} items and a history before them.")
    if most is not None and most < len(windows.owners):
        windows = windows.part(np.linspace(0, len(windows.owners) - 1, most).astype(int))
    labelled = later.where(later.labels)
    labels = [np.unique(labelled.history(user)).tolist() for user in windows.owners]
    met = np.zeros(1 + max(known.items.max(initial=0), later.items.max(initial=0)), np.bool_)
    met[known.items] = True
    warm = np.array([met[items].any() for items in labels])
    return HeldOut(known, joined, windows, labels, warm)
