"""The users of an evaluation: their histories and their held-out items.

Invariant: labels are in no history or count that a recommender may use.
"""

from dataclasses import dataclass

import numpy as np

from drafting.alignment.data.interactions import Interactions, Split
from drafting.array_types import BoolArray
from drafting.errors import InteractionError

PARTS = ("test", "valid")


@dataclass(frozen=True)
class HeldOut:
    """Users with a history and held-out items.

    Attributes:
        known: interactions of all users that recommenders may use.
        histories: catalog indices of each user's history, oldest first.
        labels: distinct held-out items of each user.
        warm: `[users]` bool, True for users with a label that occurs in `known`.
    """

    known: Interactions
    histories: list[list[int]]
    labels: list[list[int]]
    warm: BoolArray

    def __len__(self) -> int:
        return len(self.histories)

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
    known, later = (split.train.followed_by(split.valid), split.test) if part == "test" else (split.train, split.valid)
    users = np.flatnonzero((known.lengths > 0) & (later.lengths > 0))
    if not len(users):
        raise InteractionError(f"There are no users to evaluate: no user has {part} items and a history before them.")
    if most is not None and most < len(users):
        users = users[np.linspace(0, len(users) - 1, most).astype(int)]
    labels = [np.unique(later.history(user)).tolist() for user in users]
    met = np.unique(known.items)
    warm = np.array([bool(np.isin(items, met).any()) for items in labels])
    return HeldOut(known, [known.history(user).tolist() for user in users], labels, warm)
