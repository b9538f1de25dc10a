"""Splits of interactions into train, validation and test.

Invariant: of each user, the training interactions come before those of validation, and these before those of test, so no model is evaluated
on interactions that it was trained on.
"""

from dataclasses import dataclass, replace

import numpy as np

from drafting.alignment.data.details import no_kind
from drafting.alignment.data.interactions import Interactions, Split, leave_one_out
from drafting.alignment.data.record import GLOBAL_TIME, LEAVE_ONE_OUT
from drafting.errors import InteractionError

SPLITS = (LEAVE_ONE_OUT, GLOBAL_TIME)
TRAIN_SHARE, VALID_SHARE = 0.8, 0.1


@dataclass(frozen=True)
class SplitRule:
    """A rule for splitting; the paper's data is already split and needs none.

    Attributes:
        kind: one of `SPLITS`.
        min_items: users with fewer interactions are removed.
        label_kind: the kind of interactions that models predict and are judged by; None for all. Others are only known of users.
    """

    kind: str = LEAVE_ONE_OUT
    min_items: int = 1
    label_kind: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in SPLITS:
            raise InteractionError(f"There is no split {self.kind!r}: choose {' or '.join(SPLITS)}.")
        if self.min_items < 1:
            raise InteractionError(f"min_items must be at least 1, got {self.min_items}.")

    def __call__(self, interactions: Interactions) -> Split:
        """Split the interactions of users with at least `min_items`.

        Raises:
            InteractionError: there are no such users, no interactions of the kind, or the split needs timestamps and there are none.
        """
        kept = long_users(interactions, self.min_items)
        if not kept.users:
            raise InteractionError(f"No user has {self.min_items} interactions: lower min_items.")
        if self.label_kind is not None:
            if kept.details is None:
                raise InteractionError(no_kind(self.label_kind, ()))
            kept = replace(kept, labelled=kept.details.of_kind(self.label_kind))
        return leave_one_out(kept) if self.kind == LEAVE_ONE_OUT else global_time(kept)


def long_users(interactions: Interactions, min_items: int) -> Interactions:
    """The users with at least `min_items` interactions, in the same order."""
    kept = interactions.lengths >= min_items
    rows = interactions.where(np.repeat(kept, interactions.lengths))
    offsets = rows.offsets[np.append(np.flatnonzero(kept), len(kept))]
    users = tuple(user for user, keep in zip(interactions.users, kept.tolist(), strict=True) if keep)
    return replace(rows, users=users, offsets=offsets)


def global_time(interactions: Interactions) -> Split:
    """Split by time: the first 80% of all interactions to train, the next 10% to validation, the rest to test.

    Interactions of equal times keep their order.

    Raises:
        InteractionError: the interactions have no timestamps.
    """
    if interactions.timestamps is None:
        raise InteractionError("A split by time needs a timestamp with every interaction.")
    rank = np.empty(len(interactions), np.int64)
    rank[np.argsort(interactions.timestamps, kind="stable")] = np.arange(len(interactions))
    train_end = round(TRAIN_SHARE * len(interactions))
    valid_end = round((TRAIN_SHARE + VALID_SHARE) * len(interactions))
    parts = (rank < train_end, (rank >= train_end) & (rank < valid_end), rank >= valid_end)
    return Split(*(interactions.where(part) for part in parts))
