"""Whether histories have an order of time where the source has no times, or equal ones, so that the order of its rows stands for it.

Invariant: only neighbours in a history count whose order the rows alone decide.
"""

import numpy as np

from drafting.preparation.events import Events

# Fewer neighbours may stand in any order by chance; and where new items have larger ids, most do, but not nearly all.
_FEWEST, _SHARE = 100, 0.95


def order_of_ids(events: Events, *, timed: bool) -> str | None:
    """A sentence if histories stand in the order of the items' ids; None if they do not, or not where the rows decide.

    Args:
        events: by user and time, with items that are numbered in the order of their ids.
        timed: whether the source has times.
    """
    decided = events.users[1:] == events.users[:-1]
    if timed:
        decided &= events.times[1:] == events.times[:-1]
    steps = np.diff(events.items)[decided]
    rising, falling = int(np.count_nonzero(steps > 0)), int(np.count_nonzero(steps < 0))
    most, both = max(rising, falling), rising + falling
    if both < _FEWEST or most < _SHARE * both:
        return None
    order = "order" if rising == most else "reverse order"
    return (
        f"Of {both:,} pairs of neighbours in histories that the order of the rows alone puts in order, {most:,} stand in the {order} of "
        "their items' ids, which is hardly that of time: models would learn it, and be judged by it. Name a column of times with --time, "
        "or sort the rows by time."
    )
