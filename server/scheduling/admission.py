"""Admission control: which requests are worth starting, and those that the engine process has.

The API process knows every request that it has let in and how fast the engine works; so it can tell when the list of one more would be
ready, without asking the engine, which answers only between two steps.

An idle engine always tries: a request that meets no other is let in whatever is believed of the engine's speed, unless its deadline has
passed. Otherwise it is let in if (1) its own list will be ready by its deadline, behind all that the engine takes up before it, and (2) no
request behind it, which would have been in time without it, is late because of it. Where texts are written before lists, or lists have
caps, the wait for a place among those of the kind is a part of both. It is asked once, before its stored history is read:
until then its work is what requests have come to on average, and it counts for others whose history is unread too, so what is let in is
never refused later. It does not count for those who bring their history: a store that hangs must not keep an idle engine from them.

Invariants: a request that is refused has cost neither the engine nor the history store anything; and one that is let in leaves the queue
exactly once: with its list, with a failure, with the engine's end, or when its caller gives it up. Reason for refusals: under overload some
must go without a list, and a list that comes too late has taken the time of another that would have been in time. What is predicted is
allowed to be off by `CAUTION`, always to the disadvantage of the one who asks, because a refusal at once is worth more to a client than a
list that is late. Reason for the exception: nothing but a request can show that the engine is faster than it was, so a forecast that kept
all of them out would stand for ever; and an idle engine loses nothing by trying.
"""

import asyncio
import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence
from operator import attrgetter

from server.errors import EngineUnavailable, QueueFull, RequestRefused, ScoresNotFinite, TooLate
from server.messages import FailedList, FinishedList, Progress, Ready, Submit, ThinkingLimit
from server.scheduling.kinds import Kind
from server.scheduling.order import due
from server.scheduling.pending import PendingRequest
from server.scheduling.rate import EngineRate
from server.scheduling.shares import NOTHING, Shares
from server.scheduling.thinking import PlacesForecast
from server.scheduling.wide import is_wide

# Queues drain in steps, users' histories differ, and machines are now faster, now slower: what is predicted must fit with this to spare. It
# costs no throughput as long as a queue remains.
CAUTION = 1.4
_LONGEST_RETRY_SECONDS = 60
# A list takes as many steps as an identifier has tokens, at most; the rest is for requests that a step was too full for, and for texts, of
# whose steps the newest are shown.
_TRACED_STEPS = 64
# Of each kind of requests that has so many.
Places = dict[Kind, PlacesForecast]


class Admission:
    """The requests in the hands of one engine process, in the order in which it takes them up; none while there is no engine."""

    def __init__(self, most: int) -> None:
        """`most` is how many requests may be pending, waiting and running together."""
        self._most = most
        self._queue: list[PendingRequest] = []
        self._rate: EngineRate | None = None
        self._thinking, self._end_tokens = ThinkingLimit(1, 0), 0
        self._step_tokens = 0

    @property
    def rate(self) -> EngineRate:
        """The rate of the engine, which must be running."""
        assert self._rate is not None
        return self._rate

    @property
    def wait_seconds(self) -> float:
        """Expected seconds until the engine has finished its requests, or, if that is later, until the last that needs a place has it."""
        if self._rate is None:
            return 0.0
        queue = [request for request in self._queue if not request.unread]
        work = self._rate.queue_seconds(sum(request.work + request.text + request.scored for request in queue))
        placed = [request for request in queue if request.kind]
        began = max(places.began for places in self._places(placed, len(placed)).values())
        return max(work, began * self._rate.step_seconds)

    def open(self, ready: Ready) -> None:
        """Take requests for an engine that has just become ready."""
        self._rate, self._thinking, self._end_tokens = EngineRate(ready), ready.thinking, ready.end_tokens
        self._step_tokens = ready.step_tokens

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
        self._foresee(request, self.rate.stored_items if items is None else items)
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
        first_behind = bisect_right(queue, request.due, key=attrgetter("due"))
        everyone = self._shares(queue)
        ahead = everyone if first_behind == len(queue) else self._shares(queue[:first_behind]).beside(everyone.scored)
        asked, begun = ("The scores", "they were not begun") if request.scored else ("The list", "it was not begun")
        is_idle = all(other.unread for other in queue)
        texts = sum(other.text for other in queue[:first_behind]) if request.text else 0
        by_kind = not self._thinking.requests or request.kind is not None or any(other.kind for other in queue)
        places = self._places(queue, first_behind) if by_kind else {}
        wait = self._wait_steps(with_it := {kind: taken.copy() for kind, taken in places.items()}, request)
        before_it = (everyone if request.scored else ahead).until(request) - request.work - request.scored
        seconds = self._seconds(before_it + texts, wait, request, is_idle) if queue else 0.0
        ready, deadline = now + seconds, request.submit.deadline
        if ready > deadline:
            raise TooLate(
                f"{asked} would be ready in about {math.ceil(1000 * (ready - now))} ms, but {_patience(deadline - now)}; so {begun}.",
                _retry_after(ready - deadline),
            )
        all_ready = now + self._drain(everyone.added(request).all + request.scored)
        if not by_kind and all(other.submit.deadline >= all_ready for other in queue):
            # In most queues nobody waits for a place, and then all lists are ready by then, whatever their order is.
            return
        ahead = NOTHING.beside(everyone.scored)
        for place, other in enumerate(queue):
            is_behind = place >= first_behind
            first, ahead = ahead, ahead.added(other)
            # Scores are later because of every list, and lists because of scores, wherever they stand in the queue.
            if not (is_behind or other.scored or (request.scored and not other.text)):
                continue
            if other.scored:
                until, later = everyone.all, everyone.added(request).all + request.scored
            else:
                until = first.until(other) + other.text
                with_it_first = (first.added(request) if is_behind else first).beside(everyone.scored + request.scored)
                later = with_it_first.until(other) + other.text + (request.text if other.text else 0)
            before = now + self._behind(until, self._wait_steps(places, other), other)
            after = self._behind(later, self._wait_steps(with_it, other), other)
            if before <= other.submit.deadline < now + after:
                raise TooLate(f"{asked} would make others late that the server has already taken on; so {begun}.", _retry_after(after))

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
        self._foresee(request)
        request.due = due(request.submit.deadline, request.submit.submitted)
        self.enter(request)
        request.result = asyncio.get_running_loop().create_future()
        return request.result

    def deliver(self, progress: Progress) -> None:
        """Give each request what the engine has to say of it."""
        self.rate.learn(progress)
        scored = sum(step.report.scored_nodes for step in progress.steps)
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
                self.rate.learn_list(finished, request.submit)
                request.settle(finished)
        for failed in progress.failed:
            for request in self._take(failed.request_id):
                request.settle(_error(failed))

    def forget(self, user: str) -> None:
        """Make the requests of a user those of nobody, so that nothing is kept of any that the engine is given from now on."""
        for request in self._queue:
            if request.submit.user == user:
                request.submit.user = None

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

    def _foresee(self, request: PendingRequest, items: int | None = None) -> None:
        """Work out what a request will need, with a history of so many items where that is not in it yet."""
        submit = request.submit
        request.work, request.text = self.rate.work(submit, items), self.rate.text_tokens(submit)
        request.is_wide = is_wide(submit.beam_width, self._step_tokens)
        request.scored = self.rate.scored_tokens(submit)
        request.slots = self.rate.prompt_tokens(submit, items) + submit.think + self._end_tokens if submit.think else 0

    def _shares(self, queue: Sequence[PendingRequest]) -> Shares:
        """The work of requests by their kind."""
        wide = sum(request.work for request in queue if request.is_wide)
        return Shares(sum(request.work for request in queue) - wide, wide, sum(request.scored for request in queue))

    def _places(self, queue: Sequence[PendingRequest], first_behind: int) -> Places:
        """The places of each kind, as far as they are taken already or by those that come first."""
        places = {kind: PlacesForecast(self._thinking) for kind in (Kind.TEXT, Kind.CAPPED)}
        for other in queue:
            if other.has_place:
                self._take_place(places, other)
        for other in queue[:first_behind]:
            self._wait_steps(places, other)
        return places

    def _wait_steps(self, places: Places, request: PendingRequest) -> float:
        """The steps until a request gets a place of its kind, which it takes; 0 for one that needs none, or has it."""
        # Where only one request runs at a time, a list waits for those of each kind, too.
        needs_none = request.has_place if request.kind else self._thinking.requests
        return 0.0 if needs_none else self._take_place(places, request)

    def _take_place(self, places: Places, request: PendingRequest) -> float:
        """Give a request the next place of its kind; return the steps until it has it."""
        kind = request.kind if self._thinking.requests else Kind.TEXT
        assert kind is not None
        return places[kind].take(self.rate.steps(request.submit, request.text) if request.kind else 0.0, request.slots)

    def _seconds(self, ahead: int, wait: float, request: PendingRequest, is_idle: bool) -> float:
        """When the list will be ready that has so much work ahead of its own, and so many steps until it gets a place."""
        own, text = request.work + request.text + request.scored, request.text
        alone = self.rate.alone_seconds(request.submit, own, text)
        if is_idle:
            # Others' histories are being read, and the engine has nothing to do: what the steps of a crowd took says nothing here.
            return alone + CAUTION * (self.rate.queue_seconds(ahead) + wait * self.rate.idle_step_seconds)
        step = self.rate.step_seconds
        return max(self._drain(ahead + own), step + CAUTION * wait * step + max(alone, self.rate.shared_seconds(request.submit, text)))

    def _behind(self, until: int, wait: float, other: PendingRequest) -> float:
        """When the list of a request in the queue will be ready, with all the work until then, and so many steps until it gets a place."""
        if not (wait or other.kind):
            return self._drain(until)
        step = self.rate.step_seconds
        return max(self._drain(until), step + CAUTION * wait * step + self.rate.shared_seconds(other.submit, other.text))

    def _drain(self, work: int) -> float:
        """When so much work will be done, the step that runs now included."""
        return self.rate.step_seconds + CAUTION * self.rate.queue_seconds(work)


def _error(failed: FailedList) -> Exception:
    if failed.not_finite:
        return ScoresNotFinite()
    return TimeoutError() if failed.sentence is None else RequestRefused(failed.sentence)


def _retry_after(seconds: float) -> int:
    return min(max(1, math.ceil(seconds)), _LONGEST_RETRY_SECONDS)


def _patience(seconds: float) -> str:
    return f"only {left} ms are left until its timeout" if (left := math.floor(1000 * seconds)) > 0 else "its timeout has already passed"
