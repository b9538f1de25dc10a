"""How far back a prompt reads: the earlier interactions that a sample must know so that its prompt is that of a user with a stored history.

Invariant: of all events, and of each kind that the prompt lists apart, a sample knows as many of the newest as the prompt's window holds,
and one more, which tells that there are more. It knows none that a store would have forgotten, because a request's prompt shows none of
these.
"""

from collections.abc import Mapping

import numpy as np

from drafting.alignment.data.details import EventDetails, no_kind
from drafting.alignment.data.interactions import Interactions
from drafting.array_types import IntArray
from drafting.errors import InteractionError
from drafting.prompts.user_state import STORED_EVENTS


class Reach:
    """The interactions that a sample must know for one form of prompt."""

    def __init__(self, interactions: Interactions, kinds: Mapping[str, int]) -> None:
        """
        Args:
            kinds: the kinds of events that the prompt lists apart, and how many of each at most.

        Raises:
            InteractionError: no interaction is of such a kind.
        """
        check_kinds(interactions.details, kinds)
        self._offsets = interactions.offsets
        details = interactions.details
        self._kinds = [(np.flatnonzero(details.of_kind(kind)), most + 1) for kind, most in kinds.items()] if details is not None else []

    def known(self, owner: int, first: int, last: int) -> IntArray:
        """The positions of a sample's interactions before the one at `last`, all from `first` on, oldest first."""
        window = np.arange(first, last)
        older, since = [window], max(int(self._offsets[owner]), last - STORED_EVENTS)
        for positions, most in self._kinds:
            end = int(np.searchsorted(positions, last))
            newest = positions[max(0, end - most) : end]
            older.append(newest[newest >= since])
        return window if len(older) == 1 else np.unique(np.concatenate(older))


def check_kinds(details: EventDetails | None, kinds: Mapping[str, int]) -> None:
    """Refuse data without an event of a kind that a prompt lists apart.

    Raises:
        InteractionError: no interaction is of such a kind.
    """
    there = () if details is None else details.kinds
    if missing := next((kind for kind in kinds if kind not in there), None):
        raise InteractionError(f"The prompt lists behaviours.{missing}. {no_kind(missing, there)}")
