"""Labels that their users had met before. No list that leaves out what users have met can hold one.

Where people come back to items, or view what they buy, most labels are of this kind. Lists without seen items then find next to nothing. So
they can choose nothing (neither an epoch, nor identifiers, nor the settings of a neighbour model), and their figures say little.
"""

from dataclasses import dataclass

import numpy as np

from drafting.alignment.data.interactions import Split
from drafting.alignment.data.windows import next_windows
from drafting.array_types import IntArray
from drafting.errors import InteractionError
from drafting.prompts.user_state import STORED_EVENTS
from drafting.trie.arrays import ranges


@dataclass(frozen=True)
class MetLabels:
    """How many distinct labels the users of a part have, and how many of these are in their stored histories."""

    met: int
    labels: int

    @property
    def are_most(self) -> bool:
        return 2 * self.met > self.labels

    def __str__(self) -> str:
        return f"{self.met:,} of {self.labels:,}"


def check_labels_are_new(split: Split) -> None:
    """Refuse to choose anything by lists that leave out what users have met, where more than half of the validation labels are such items.

    Raises:
        InteractionError: as this says.
    """
    found = met_labels(split, "valid")
    if found.are_most:
        raise InteractionError(
            f"{found} validation labels are items that their users had met before, which lists leave out, so the validation "
            "part cannot tell good lists from bad: pass --keep-seen, and lists keep them; or prepare the data with --repeats first if such "
            "items are not to be predicted."
        )


def met_labels(split: Split, part: str) -> MetLabels:
    """The labels of a part, "valid" or "test", that their users had met before."""
    known, later = split.asked(part)
    joined, windows = next_windows(known, later, STORED_EVENTS)
    lengths = windows.last - windows.first
    met = _pairs(np.repeat(windows.owners, lengths), joined.items[ranges(windows.first, lengths)])
    asked = later.labels & np.isin(later.owners, windows.owners)
    labels = np.unique(_pairs(later.owners[asked], later.items[asked]))
    return MetLabels(int(np.isin(labels, met).sum()), len(labels))


def _pairs(users: IntArray, items: np.ndarray) -> IntArray:
    """A number for each pair of user and item."""
    pairs: IntArray = (users.astype(np.int64) << 32) | items
    return pairs
