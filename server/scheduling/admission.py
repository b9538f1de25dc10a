"""Admission control: which requests are worth starting, and those that the engine process has.

The API process knows every request that it has let in and how fast the engine works; so it can tell when the list of one more would be
ready, without asking the engine, which answers only between two steps.

An idle engine always tries: a request that meets no other is let in whatever is believed of the engine's speed, unless its deadline has
passed. Any other request is let in if (1) its own list will be ready by its deadline, behind all that the engine takes up before it, and
(2) it makes no request behind it late that would be in time without it. Where texts are written before lists, or lists have caps, both
times include the wait for a place among the requests of that kind.

A request is judged once, before its stored history is read, and is never refused later. While its history is unread, its work is taken
to be that of an average request, and it counts only for other requests whose history is unread. It does not count for requests that
bring their history: a store that hangs must not keep these from an idle engine. So for a while up to twice as many may be pending as
`--max-running` and `--max-waiting` say together.

Invariants: a request that is refused has cost neither the engine nor the history store anything; and one that is let in leaves the queue
exactly once: with its list, with a failure, with the engine's end, or when its caller gives it up. Reason for refusals: under overload
some requests must go without a list, and a list that comes too late has taken the time of another that would have been in time. Reason for
trying with an idle engine: nothing but a request can show that the engine is faster than it was, so a forecast that kept all requests out
would stand for ever; and an idle engine loses nothing by trying.
"""

import asyncio
import math
from bisect import insort
from collections import deque
from operator import attrgetter

from server.errors import RequestRefused, ScoresNotFinite
from server.messages import FailedList, FinishedList, Progress, Ready
from server.scheduling.forecast import Forecast, Insertion
from server.scheduling.order import due
from server.scheduling.pending import PendingRequest
from server.submit import Submit
from server.try_again import EngineUnavailable, QueueFull, TooLate

_LONGEST_RETRY_SECONDS = 60
# A list takes as many steps as an identifier has tokens, at most; the rest is for requests that a step was too full for, and for texts, of
# whose steps the newest are shown.
_TRACED_STEPS = 64


class Admission:
    """The requests in the hands of one engine process, in the order in which it takes them up; none while there is no engine."""

    def __init__(self, most: int) -> None:
        """`most` is how many requests may be pending, waiting and running together; those that are unread count for one another alone."""
        self._most = most
        self._queue: list[PendingRequest] = []
        self._forecast: Forecast | None = None

    @property
    def forecast(self) -> Forecast:
        """Of the engine, which must be running."""
        assert self._forecast is not None
        return self._forecast

    @property
    def wait_seconds(self) -> float:
        """Expected seconds until the engine has finished its requests, or, if that is later, until the last that needs a place has it."""
        return 0.0 if self._forecast is None else self._forecast.wait_seconds([each for each in self._queue if not each.unread])

    def open(self, ready: Ready) -> None:
        """Take requests for an engine that has just become ready."""
        self._forecast = Forecast(ready)

    def admit(self, submit: Submit, now: float, items: int | None = None, *, traced: bool = False) -> PendingRequest:
        """Let a request in, or refuse it.

        Args:
            items: items of its history; None where they are not known yet.
            traced: True if its steps are recorded.

        Raises:
            QueueFull: too many requests are pending.
            TooLate: its list would be late, or would make another late.
        """
        request = PendingRequest(submit, 0, unread=items is None)
        self.forecast.foresee(request, self.forecast.rate.stored_items if items is None else items)
        self.check(request, now)
        if traced:
            request.steps = deque(maxlen=_TRACED_STEPS)
        self.enter(request)
        return request

    def check(self, request: PendingRequest, now: float) -> None:
        """Refuse a request that is not worth starting.

        Raises:
            QueueFull: too many requests are pending.
            TooLate: its list would be late, or would make another late.
        """
        queue = self._queue if request.unread else [other for other in self._queue if not other.unread]
        if len(queue) >= self._most:
            sentence = f"{len(queue)} requests are already waiting or running, which is all that this server takes on."
            raise QueueFull(sentence, _retry_after(self.wait_seconds))
        if not queue and now <= request.submit.deadline:
            return
        insertion = Insertion(self.forecast, request, queue)
        asked, begun = ("The scores", "they were not begun") if request.submit.scored is not None else ("The list", "it was not begun")
        ready, deadline = now + insertion.ready_seconds, request.submit.deadline
        if ready > deadline:
            raise TooLate(
                f"{asked} would be ready in about {math.ceil(1000 * (ready - now))} ms, but {_patience(deadline - now)}; so {begun}.",
                _retry_after(ready - deadline),
            )
        if late := insertion.late_seconds(now):
            raise TooLate(f"{asked} would make others late that the server has already taken on; so {begun}.", _retry_after(late))

    def enter(self, request: PendingRequest) -> None:
        """Put a request into the queue."""
        insort(self._queue, request, key=attrgetter("due"))

    def leave(self, request: PendingRequest) -> None:
        """Take a request out of the queue; more than once does no harm."""
        if request in self._queue:
            self._queue.remove(request)

    def hand_over(self, request: PendingRequest) -> "asyncio.Future[FinishedList]":
        """The list to wait for, of a request whose history is complete now.

        Raises:
            EngineUnavailable: the engine that it was admitted for is gone.
        """
        if request.failure is not None:
            raise request.failure
        self.leave(request)
        request.unread = False
        self.forecast.foresee(request)
        request.due = due(request.submit.deadline, request.submit.submitted)
        self.enter(request)
        request.result = asyncio.get_running_loop().create_future()
        return request.result

    def deliver(self, progress: Progress) -> None:
        """Give each request what the engine has to say of it."""
        self.forecast.rate.learn(progress)
        scored = self._large_scored(progress)
        for request in self._queue:
            if request.steps is not None:
                request.steps.extend(progress.steps)
            # One stays, for the kind of the request follows from it.
            done = min(scored, max(0, request.scored - 1))
            request.scored, scored = request.scored - done, scored - done
            if request.has_place:
                request.text = max(0, request.text - len(progress.steps))
        for request_id in progress.placed:
            for request in self._of(request_id):
                request.has_place = True
        for finished in progress.finished:
            for request in self._take(finished.result.request_id):
                self.forecast.rate.learn_list(finished, request.submit)
                request.settle(finished)
        for failed in progress.failed:
            for request in self._take(failed.request_id):
                request.settle(_error(failed))

    def _large_scored(self, progress: Progress) -> int:
        """The prefixes that were computed for requests for scores that take several steps, as far as the others have ended."""
        if not (scored := sum(step.report.scored_nodes for step in progress.steps)):
            return 0
        ended = {finished.result.request_id for finished in progress.finished}
        small = (request.submit for request in self._queue if not request.scored and request.submit.request_id in ended)
        return max(0, scored - sum(map(self.forecast.rate.scored_tokens, small)))

    def forget(self, user: str) -> None:
        """Make the requests of a user those of nobody, so that nothing is kept of any that the engine is given from now on."""
        for request in self._queue:
            if request.submit.user == user:
                request.submit.user = None

    def names_filter(self, catalog: str, name: str) -> bool:
        """True if a request names a filter of a catalog."""
        submits = (request.submit for request in self._queue)
        return any(each.filter is not None and each.catalog == catalog and name in each.filter.names for each in submits)

    def abandon(self, sentence: str, retry_after_seconds: int) -> None:
        """Tell every request that no list will come."""
        queue, self._queue = self._queue, []
        for request in queue:
            request.settle(EngineUnavailable(sentence, retry_after_seconds))

    def _take(self, request_id: str) -> list[PendingRequest]:
        """Take the request of an id out of the queue, if it is there."""
        found = self._of(request_id)
        for request in found:
            self.leave(request)
        return found

    def _of(self, request_id: str) -> list[PendingRequest]:
        return [request for request in self._queue if request.submit.request_id == request_id]


def _error(failed: FailedList) -> Exception:
    if failed.not_finite:
        return ScoresNotFinite()
    return TimeoutError() if failed.sentence is None else RequestRefused(failed.sentence)


def _retry_after(seconds: float) -> int:
    return min(max(1, math.ceil(seconds)), _LONGEST_RETRY_SECONDS)


def _patience(seconds: float) -> str:
    return f"only {left} ms are left until its timeout" if (left := math.floor(1000 * seconds)) > 0 else "its timeout has already passed"
