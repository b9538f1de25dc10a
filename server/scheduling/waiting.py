"""The queue: requests that wait for the engine, in the order in which it takes them up.

Order: the request with the earliest *due time* first, ties by arrival. A request is due at its deadline, but at the latest
`AGEING_SECONDS` after it arrived.

Invariant (nobody starves): a request that has waited for `AGEING_SECONDS` is overtaken by nobody who comes after that, because whoever
comes later is due later. So however urgent the others are, only those that arrived before that moment can stand in front of it, and they
are finitely many. Reason for the rest: under load, the most urgent first is what keeps the most deadlines.
"""

import heapq
import itertools
from dataclasses import dataclass, field

from verification.request import BeamRequest

AGEING_SECONDS = 2.0


def due(deadline: float, arrived: float) -> float:
    """The time that a request's place in the queue follows from, on the clock of both."""
    return min(deadline, arrived + AGEING_SECONDS)


@dataclass(order=True)
class Entry:
    """A request on its way through the scheduler; entries compare by who is taken up first."""

    due: float
    number: int
    request: BeamRequest = field(compare=False)
    deadline: float = field(compare=False)
    arrived: float = field(compare=False)
    started: float = field(compare=False, default=0.0)


class WaitingRequests:
    """Entries by request id, and which of them is first."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        # Holds every waiting entry, and those that left otherwise than as the first until they come to the top.
        self._heap: list[Entry] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._entries

    def push(self, request: BeamRequest, deadline: float, arrived: float) -> None:
        """Adds a request whose id is not in the queue."""
        entry = Entry(due(deadline, arrived), next(self._numbers), request, deadline, arrived)
        self._entries[request.request_id] = entry
        heapq.heappush(self._heap, entry)

    def first(self) -> Entry | None:
        """The entry to take up next; None if nobody waits."""
        while self._heap and self._entries.get(self._heap[0].request.request_id) is not self._heap[0]:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def remove(self, request_id: str) -> Entry | None:
        """Takes a request out, wherever it stands; None if it does not wait."""
        entry = self._entries.pop(request_id, None)
        if len(self._heap) > 2 * len(self._entries) + 8:
            # Cancelled entries deep in the heap would otherwise stay for as long as urgent requests keep coming.
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)
        return entry

    def late(self, now: float) -> list[str]:
        """Ids of those whose deadline has passed."""
        return [request_id for request_id, entry in self._entries.items() if entry.deadline <= now]
