"""Labels that their users had met before: no list that leaves out what users have met can hold one.

Where people come back to items, or view what they buy, most labels are such. Lists without them find next to nothing, so nothing can be
chosen by them: neither an epoch, nor identifiers, nor the settings of a neighbour model.
"""

import numpy as np

from drafting.alignment.data.interactions import Split
from drafting.alignment.data.windows import next_windows
from drafting.array_types import IntArray
from drafting.errors import InteractionError
from drafting.prompts.user_state import STORED_EVENTS
from drafting.trie.arrays import ranges


def check_labels_are_new(split: Split) -> None:
    """Refuse to choose anything by lists that leave out what users have met, where more than half of the validation labels are such items.

    Raises:
        InteractionError: as this says.
    """
    met, labels = _validation_labels(split)
    if 2 * met > labels:
        raise InteractionError(
            f"{met:,} of {labels:,} validation labels are items that their users had met before, which lists leave out, so the validation "
            "part cannot tell good lists from bad: pass --keep-seen, and lists keep them; or prepare the data with --repeats first if such "
            "items are not to be predicted."
        )


def _validation_labels(split: Split) -> tuple[int, int]:
    """How many distinct labels validation users have, and how many of these are in their stored histories: those, then all."""
    joined, windows = next_windows(split.train, split.valid, STORED_EVENTS)
    lengths = windows.last - windows.first
    met = _pairs(np.repeat(windows.owners, lengths), joined.items[ranges(windows.first, lengths)])
    asked = split.valid.labels & np.isin(split.valid.owners, windows.owners)
    labels = np.unique(_pairs(split.valid.owners[asked], split.valid.items[asked]))
    return int(np.isin(labels, met).sum()), len(labels)


def _pairs(users: IntArray, items: np.ndarray) -> IntArray:
    """A number for each pair of user and item."""
    pairs: IntArray = (users.astype(np.int64) << 32) | items
    return pairs
