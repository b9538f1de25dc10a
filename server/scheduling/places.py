"""Places among requests that think, and among those with caps: how many run together, and when one that waits is foreseen to get its own.

Invariant: the engine process takes requests up by the very rule by which the API process foresees their waits. Reason: texts and further
rounds take many steps, so the wait for a place is the longest part of what some lists take, and a wait that is not foreseen makes the list
late.
"""

from copy import copy
from heapq import heappop, heappush

from server.messages import PlacesLimit


def fits(limit: PlacesLimit, requests: int, slots: int) -> bool:
    """True if so many requests of a kind may run together that need so many KV slots in all; one may always."""
    return requests <= 1 or (requests <= limit.requests and slots <= limit.slots)


class PlacesForecast:
    """The places as requests take them, in the order of the queue: of one kind, none overtakes another.

    Attributes:
        began: steps until the last request that has taken a place has it.
    """

    def __init__(self, limit: PlacesLimit) -> None:
        self._limit = limit
        self._slots = 0
        self.began = 0.0
        self._ends: list[tuple[float, int]] = []

    def take(self, steps: float, slots: int) -> float:
        """Give the next request a place, for so many steps and KV slots; return the steps until it has it."""
        while not fits(self._limit, len(self._ends) + 1, self._slots + slots):
            self.began, freed = heappop(self._ends)
            self._slots -= freed
        heappush(self._ends, (self.began + steps, slots))
        self._slots += slots
        return self.began

    def copy(self) -> "PlacesForecast":
        """The same places, to be taken otherwise from now on."""
        other = copy(self)
        other._ends = self._ends.copy()
        return other
