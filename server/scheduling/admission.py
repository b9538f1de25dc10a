"""Admission control: which requests are worth starting, and those that the engine process has.

The API process knows every request that it has let in and how fast the engine works; so it can tell when the list of one more would be
ready, without asking the engine, which answers only between two steps.

An idle engine always tries: a request that meets no other is let in whatever is believed of the engine's speed, unless its deadline has
passed. Otherwise it is let in if (1) its own list will be ready by its deadline, behind all that the engine takes up before it, and (2) no
request behind it, which would have been in time without it, is late because of it. It is asked once, before its stored history is read:
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
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeVar

from server.errors import EngineUnavailable, QueueFull, RequestRefused, ScoresNotFinite, TooLate
from server.messages import FailedList, FinishedList, Progress, Ready, StepRecord, Submit
from server.scheduling.rate import EngineRate
from server.scheduling.scheduler import due

T = TypeVar("T")

# Queues drain in steps, users' histories differ, and machines are now faster, now slower: what is predicted must fit with this to spare. It
# costs no throughput as long as a queue remains.
CAUTION = 1.4
_LONGEST_RETRY_SECONDS = 60
_DRAIN_LOOK_SECONDS = 0.02
# A list takes as many steps as an identifier has tokens, at most; the rest is for requests that a step was too full for, and for texts, of
# whose steps the newest are shown.
_TRACED_STEPS = 64


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request from its admission to its end, with all that the API process knows of it; the queue is ordered by `due`.

    Attributes:
        work: tokens that it is foreseen to need, those of a text aside.
        text: tokens of text that it is foreseen to write first: others that write none don't wait for them.
        unread: True while its stored history is being read.
        steps: of the engine while it was pending, if it is traced; the newest ones.
        result: its list, awaited from the moment that the engine is given the request.
        failure: why there will be no list, if that was known before then.
    """

    submit: Submit
    work: int
    text: int = 0
    unread: bool = False
    steps: deque[StepRecord] | None = None
    result: "asyncio.Future[FinishedList] | None" = None
    failure: Exception | None = None
    due: float = field(init=False)

    def __post_init__(self) -> None:
        self.due = due(self.submit.deadline, self.submit.submitted)

    def settle(self, outcome: FinishedList | Exception) -> None:
        """End the wait for the list."""
        if self.result is None:
            self.failure = outcome if isinstance(outcome, Exception) else None
        elif self.result.done():
            return
        elif isinstance(outcome, FinishedList):
            self.result.set_result(outcome)
        else:
            self.result.set_exception(outcome)

    def own_steps(self, finished: FinishedList) -> list[StepRecord]:
        """The steps that it took part in: every running request takes part in every step, so those that ended after it was taken up."""
        if not self.steps:
            return []
        taken_up = self.steps[-1].ended - finished.engine_seconds
        return [step for step in self.steps if step.ended > taken_up]


class Admission:
    """The requests in the hands of one engine process, in the order in which it takes them up; none while there is no engine."""

    def __init__(self, most: int) -> None:
        """`most` is how many requests may be pending, waiting and running together."""
        self._most = most
        self._queue: list[PendingRequest] = []
        self._rate: EngineRate | None = None

    @property
    def rate(self) -> EngineRate:
        """The rate of the engine, which must be running."""
        assert self._rate is not None
        return self._rate

    @property
    def wait_seconds(self) -> float:
        """Expected seconds until the engine has finished its requests."""
        return (
            0.0
            if self._rate is None
            else self._rate.queue_seconds(sum(request.work + request.text for request in self._queue if not request.unread))
        )

    def open(self, ready: Ready) -> None:
        """Take requests for an engine that has just become ready."""
        self._rate = EngineRate(ready)

    def admit(self, submit: Submit, now: float, items: int | None = None, *, traced: bool = False) -> PendingRequest:
        """Let a request in, or refuse it.

        Args:
            items: items of its history; None where they are not known yet.
            traced: True if its steps are recorded.

        Raises:
            QueueFull: too many requests are pending.
            TooLate: its list would be late, or would make another late.
        """
        work = self.rate.work(submit, self.rate.stored_items if items is None else items)
        request = PendingRequest(submit, work, self.rate.text_tokens(submit), items is None)
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
        first_behind = bisect_right(queue, request.due, key=attrgetter("due"))
        ahead = sum(other.work for other in queue[:first_behind])
        is_idle = all(other.unread for other in queue)
        texts = sum(other.text for other in queue[:first_behind]) if request.text else 0
        ready, deadline = now + (self._seconds(ahead + texts, request, is_idle) if queue else 0.0), request.submit.deadline
        if ready > deadline:
            raise TooLate(
                f"The list would be ready in about {math.ceil(1000 * (ready - now))} ms, but {_patience(deadline - now)}; so it was not "
                "begun.",
                _retry_after(ready - deadline),
            )
        for other in queue[first_behind:]:
            until = ahead + other.work + other.text
            before, after = now + self._drain(until), self._drain(until + request.work + (request.text if other.text else 0))
            ahead += other.work
            if before <= other.submit.deadline < now + after:
                raise TooLate(
                    "The list would make others late that the server has already taken on; so it was not begun.", _retry_after(after)
                )

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
        request.work, request.text = self.rate.work(request.submit), self.rate.text_tokens(request.submit)
        request.due = due(request.submit.deadline, request.submit.submitted)
        self.enter(request)
        request.result = asyncio.get_running_loop().create_future()
        return request.result

    def deliver(self, progress: Progress) -> None:
        """Give each request what the engine has to say of it."""
        self.rate.learn(progress)
        for request in self._queue:
            if request.steps is not None:
                request.steps.extend(progress.steps)
        for finished in progress.finished:
            for request in self._take(finished.result.request_id):
                self.rate.learn_list(finished, request.submit)
                request.settle(finished)
        for failed in progress.failed:
            for request in self._take(failed.request_id):
                request.settle(_error(failed))

    def abandon(self, sentence: str, retry_after_seconds: int) -> None:
        """Tell every request that no list will come."""
        queue, self._queue = self._queue, []
        for request in queue:
            request.settle(EngineUnavailable(sentence, retry_after_seconds))

    def _take(self, request_id: str) -> list[PendingRequest]:
        """Take the request of an id out of the queue, if it is there."""
        found = [request for request in self._queue if request.submit.request_id == request_id]
        for request in found:
            self.leave(request)
        return found

    def _seconds(self, ahead: int, request: PendingRequest, is_idle: bool) -> float:
        """When the list will be ready that has so much work ahead of its own."""
        own, text = request.work + request.text, request.text
        alone = self.rate.alone_seconds(own, text)
        if is_idle:
            # Others' histories are being read, and the engine has nothing to do: what the steps of a crowd took says nothing here.
            return alone + CAUTION * self.rate.queue_seconds(ahead)
        return max(self._drain(ahead + own), self.rate.step_seconds + max(alone, self.rate.shared_seconds(text)))

    def _drain(self, work: int) -> float:
        """When so much work will be done, the step that runs now included."""
        return self.rate.step_seconds + CAUTION * self.rate.queue_seconds(work)


class Drain:
    """The end of a server, in order: no new requests, then the running ones finish, then the process ends.

    A request that was begun before is finished, unless the grace period ends first; one that comes later is told at once that this server
    is going away, so that its client asks another.
    """

    def __init__(self) -> None:
        self.draining = False
        self.running = 0
        self._given_up: set[asyncio.Task[Any]] = set()

    def begin(self) -> None:
        """Take no requests from now on, and give up those that may take long."""
        self.draining = True
        for task in self._given_up:
            task.cancel()

    def check(self) -> None:
        """Refuse a request once the server takes none any more.

        Raises:
            EngineUnavailable: it takes none.
        """
        if self.draining:
            raise EngineUnavailable("The server is shutting down.", 1)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request for as long as it runs.

        Raises:
            EngineUnavailable: the server takes none any more.
        """
        self.check()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    async def long(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do work that may take longer than a server that is to end can wait: it is given up then, and cleans up behind itself.

        Raises:
            EngineUnavailable: the server takes no requests any more.
        """
        with self.request():
            task = asyncio.create_task(work())
            self._given_up.add(task)
            try:
                return await task
            except asyncio.CancelledError:
                self.check()
                raise
            finally:
                self._given_up.discard(task)

    async def finished(self, seconds: float) -> bool:
        """Wait until nothing runs, for so long at most; whether it came to that."""
        end = asyncio.get_running_loop().time() + seconds
        while self.running and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_DRAIN_LOOK_SECONDS)
        return not self.running


def _error(failed: FailedList) -> Exception:
    if failed.not_finite:
        return ScoresNotFinite()
    return TimeoutError() if failed.sentence is None else RequestRefused(failed.sentence)


def _retry_after(seconds: float) -> int:
    return min(max(1, math.ceil(seconds)), _LONGEST_RETRY_SECONDS)


def _patience(seconds: float) -> str:
    left = math.floor(1000 * seconds)
    return f"only {left} ms are left until its timeout" if left > 0 else "its timeout has already passed"
