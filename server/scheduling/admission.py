"""Admission: which requests are worth starting.

The API process knows every request that it has handed to the engine and not got back, and how fast the engine works; so it can tell when
the list of one more would be ready, without asking the engine, which answers only between two steps.

A request is let in if (1) its own list will be ready by its deadline, behind all that the engine takes up before it, and (2) nobody behind
it, who would have been in time without it, is late because of it.

Invariant: a request that is refused has cost the engine nothing. Reason: under overload somebody must go without a list, and a list that
comes too late has taken the time of another that would have been in time. What is predicted is allowed to be off by `CAUTION`, always to
the disadvantage of the one who asks, because a refusal at once is worth more to a client than a list that is late.
"""

import math
from bisect import bisect_left, bisect_right, insort
from typing import NamedTuple

from server.errors import TooLate
from server.messages import Progress, Ready, Submit
from server.scheduling.rate import EngineRate
from server.scheduling.waiting import due

# Queues drain in steps, users' histories differ, and machines are now faster, now slower: what is predicted must fit with this to spare. It
# costs no throughput as long as a queue remains.
CAUTION = 1.4
_LONGEST_RETRY_SECONDS = 60


class _Place(NamedTuple):
    """A request's place in the engine's queue; places compare in the order of `server.scheduling.waiting`, and no two have one number."""

    due: float
    number: int
    deadline: float
    work: int


class Admission:
    """Everything that is in the engine's hands, in the order in which it will be taken up."""

    def __init__(self, ready: Ready) -> None:
        """For a fresh engine, which has nothing in its hands."""
        self.rate = EngineRate(ready)
        self._places: list[_Place] = []
        self._requests: dict[str, tuple[Submit, _Place]] = {}
        self._number = 0

    @property
    def wait_seconds(self) -> float:
        """How long the engine will be busy with what it has."""
        return self.rate.queue_seconds(sum(place.work for place in self._places))

    def check(self, request: Submit, now: float) -> None:
        """Whether a request may be handed to the engine now.

        Raises:
            TooLate: it would be late, or would make another late.
        """
        place = self._place(request)
        first_behind = bisect_right(self._places, place)
        ahead = sum(other.work for other in self._places[:first_behind])
        seconds = self._seconds(ahead, place.work)
        if now + seconds > place.deadline:
            raise TooLate(
                f"The list would be ready in about {math.ceil(1000 * seconds)} ms, but {_patience(place, now)}; so it was not begun.",
                self._retry_after(now + seconds - place.deadline),
            )
        before = after = ahead
        after += place.work
        for other in self._places[first_behind:]:
            before, after = before + other.work, after + other.work
            if now + self._drain(before) <= other.deadline < now + self._drain(after):
                raise TooLate(
                    "The list would make others late that the server has already taken on; so it was not begun.",
                    self._retry_after(self._drain(after)),
                )

    def enter(self, request: Submit) -> None:
        """Notes that a request is in the engine's hands."""
        place = self._place(request)
        self._number += 1
        insort(self._places, place)
        self._requests[request.request_id] = request, place

    def leave(self, request_id: str) -> None:
        """Notes that a request is not in the engine's hands any more; more than once does no harm."""
        if request_id in self._requests:
            _, place = self._requests.pop(request_id)
            del self._places[bisect_left(self._places, place)]

    def learn(self, progress: Progress) -> None:
        """Takes over what the engine reports of its steps and lists; before the lists leave."""
        self.rate.learn(progress)
        for finished in progress.finished:
            if finished.request_id in self._requests:
                self.rate.learn_list(finished, self._requests[finished.request_id][0])

    def _place(self, request: Submit) -> _Place:
        return _Place(due(request.deadline, request.submitted), self._number, request.deadline, self.rate.work(request))

    def _seconds(self, ahead: int, own: int) -> float:
        """When the list will be ready that has so much work ahead of its own."""
        alone = self.rate.alone_seconds(own)
        if not self._places:
            # What the steps of a crowd took says nothing here, and a server that believed in it could refuse for ever.
            return alone
        return max(self._drain(ahead + own), self.rate.step_seconds + max(alone, self.rate.shared_seconds))

    def _drain(self, work: int) -> float:
        """When so much work will be done, the step that runs now included."""
        return self.rate.step_seconds + CAUTION * self.rate.queue_seconds(work)

    def _retry_after(self, seconds: float) -> int:
        return min(max(1, math.ceil(seconds)), _LONGEST_RETRY_SECONDS)


def _patience(place: _Place, now: float) -> str:
    left = math.floor(1000 * (place.deadline - now))
    return f"only {left} ms are left until its timeout" if left > 0 else "its timeout has already passed"
