"""How far back samples see: as far as a store that keeps a user's newest events."""

import numpy as np

from drafting.alignment.data.columns import Column
from drafting.alignment.data.details import KIND, EventDetails
from drafting.alignment.data.interactions import Interactions
from drafting.alignment.data.reach import Reach
from drafting.prompts.user_state import STORED_EVENTS


def shop(*histories: str) -> Interactions:
    """Users whose events are bought ("b") or seen ("s")."""
    letters = "".join(histories)
    kinds = Column(np.array(["sb".index(letter) for letter in letters], np.int32), ("see", "buy"))
    offsets = np.cumsum([0, *map(len, histories)])
    details = EventDetails(np.arange(len(letters)), {KIND: kinds})
    return Interactions(tuple(map(str, range(len(histories)))), offsets, np.zeros(len(letters), np.int32), details=details)


def test_a_kind_of_events_is_looked_for_no_further_back_than_a_store_keeps_events() -> None:
    data = shop("b" * 7, "bbb" + "s" * STORED_EVENTS)
    reach, last = Reach(data, {"buy": 5}), len(data) - 1
    newest = list(range(last - 2, last))
    # The last of those that were bought is the oldest event that is still stored.
    assert reach.known(1, last - 2, last).tolist() == [9, *newest]
    assert reach.known(1, last - 3, last - 1).tolist() == [8, 9, last - 3, last - 2]
    assert reach.known(0, 5, 6).tolist() == [0, 1, 2, 3, 4, 5]
