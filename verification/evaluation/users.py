"""The users that an evaluation asks about: what is known of each, and what they met next.

Invariant: nothing of a user's labels is in any history or count that a system may use.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drafting.alignment.data.interactions import InteractionError, Interactions, Split

PARTS = ("test", "valid")


@dataclass(frozen=True)
class HeldOut:
    """Users who have both a past and something held out.

    Attributes:
        known: the interactions that every system may learn from, of all users.
        histories: per user, catalog indices, oldest first.
        labels: per user, the distinct items held out.
        warm: `[users]` bool, whether any label was ever met by anybody in `known`.
    """

    known: Interactions
    histories: list[list[int]]
    labels: list[list[int]]
    warm: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.histories)

    def spread(self, count: int) -> list[int]:
        """`count` of the users, evenly over all; all of them if there are no more."""
        places: list[int] = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)).tolist()
        return places


def held_out(split: Split, part: str = "test", most: int | None = None) -> HeldOut:
    """The users of a part: test items given train and validation, or validation items given train.

    Args:
        most: how many users to keep, spread evenly.

    Raises:
        InteractionError: no user has both.
    """
    known, later = (split.train.followed_by(split.valid), split.test) if part == "test" else (split.train, split.valid)
    users = np.flatnonzero((known.lengths > 0) & (later.lengths > 0))
    if not len(users):
        raise InteractionError(f"There is nobody to evaluate: no user has {part} items and a history before them.")
    if most is not None and most < len(users):
        users = users[np.linspace(0, len(users) - 1, most).astype(int)]
    labels = [np.unique(later.history(user)).tolist() for user in users]
    met = np.unique(known.items)
    warm = np.array([bool(np.isin(items, met).any()) for items in labels])
    return HeldOut(known, [known.history(user).tolist() for user in users], labels, warm)
