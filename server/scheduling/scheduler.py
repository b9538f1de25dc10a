"""The scheduler: which requests run in the engine's next step.

Invariant: a request is in exactly one place, waiting or running, from `submit` until it is finished, timed out or cancelled, and whichever
of these ends it, the engine is told, so its KV slots are free at the next step.

Requests are taken up in the order of `server.waiting` (earliest deadline first, with ageing) and none overtakes: a large request at the
head waits until the running ones have made room, so a stream of small ones can't starve it. How many share a step is a matter of tokens,
not of requests (`server.step_budget`), because tokens are what time goes into.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from server.scheduling.budget import StepBudget
from server.scheduling.waiting import Entry, WaitingRequests
from verification.engine.group import StepEngine
from verification.request import BeamRequest, BeamResult, StepReport

IDLE = StepReport((), tokens=0, seconds=0.0)


class RequestTooLargeError(ValueError):
    """A request that the engine could not hold even if it were alone; the message is a sentence."""


class PlanRefusalError(ValueError):
    """A request that the engine's plan can't serve; the message is a sentence."""


@dataclass(frozen=True)
class FinishedRequest:
    """A finished list and how long it took.

    Attributes:
        queue_seconds: from arrival until the engine took the request up.
        engine_seconds: from there until the list was finished.
    """

    result: BeamResult
    queue_seconds: float
    engine_seconds: float


@dataclass(frozen=True)
class ScheduledStep:
    """What one step of the scheduler did.

    Attributes:
        finished: requests that this step completed.
        timed_out: ids of requests whose deadline had passed.
        report: what the engine says of its step; `IDLE` if nothing ran.
        crowded: whether somebody had to wait for a later step.
    """

    finished: tuple[FinishedRequest, ...]
    timed_out: tuple[str, ...]
    report: StepReport
    crowded: bool = False


class SpeculativeBeamScheduler:
    """Feeds an engine from a queue, one step at a time; a waiting request joins the next step that has room for it."""

    def __init__(
        self, engine: StepEngine, budget: StepBudget, *, max_running: int = 64, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            budget: tokens that may share a step; a single request with more still runs, alone.
            max_running: requests that may share a step.
            clock: the seconds that deadlines and arrivals are on.
        """
        self._engine = engine
        self._budget = budget
        self._max_running = max_running
        self._clock = clock
        self._waiting = WaitingRequests()
        self._running: dict[str, Entry] = {}

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests in the engine."""
        return len(self._running)

    @property
    def busy(self) -> bool:
        """Whether another step would do anything."""
        return bool(self._waiting or self._running)

    def submit(self, request: BeamRequest, deadline: float, arrived: float | None = None) -> None:
        """Puts a request into the queue.

        Args:
            deadline: seconds of the clock after which the request is dropped.
            arrived: seconds of the clock from which its time in the queue counts; now by default.

        Raises:
            RequestTooLargeError: the engine has too few KV slots for it, even empty.
            PlanRefusalError: the engine's plan can't serve it.
            ValueError: its id is already taken.
        """
        if request.request_id in self._waiting or request.request_id in self._running:
            raise ValueError(f"The request id {request.request_id!r} is already in use.")
        if not self._engine.fits(request):
            raise RequestTooLargeError(
                f"This request needs more KV slots than the engine has ({self._engine.total_slots} in all): "
                f"ask for a smaller beam width or give the server more KV memory."
            )
        if sentence := self._engine.refusal(request):
            raise PlanRefusalError(sentence)
        self._waiting.push(request, deadline, self._clock() if arrived is None else arrived)

    def cancel(self, request_id: str) -> bool:
        """Forgets a request; False if there is none of that id (any more)."""
        if self._waiting.remove(request_id) is not None:
            return True
        if self._running.pop(request_id, None) is None:
            return False
        self._engine.cancel(request_id)
        return True

    def step(self) -> ScheduledStep:
        """Drops what is late, admits what fits and runs one step of the engine."""
        timed_out = self._drop_late()
        tokens = self._admit()
        if not self._running:
            return ScheduledStep((), timed_out, IDLE)
        report = self._engine.step()
        self._budget.learn(tokens, report.seconds)
        now = self._clock()
        finished = []
        for result in report.finished:
            entry = self._running.pop(result.request_id)
            finished.append(FinishedRequest(result, entry.started - entry.arrived, now - entry.started))
        return ScheduledStep(tuple(finished), timed_out, report, crowded=bool(self._waiting))

    def _drop_late(self) -> tuple[str, ...]:
        now = self._clock()
        late = (*self._waiting.late(now), *(request_id for request_id, entry in self._running.items() if entry.deadline <= now))
        for request_id in late:
            self.cancel(request_id)
        return late

    def _admit(self) -> int:
        """Takes up who fits into the next step, in the queue's order, and returns the step's tokens, drafts aside."""
        tokens, budget = self._engine.next_tokens(), self._budget.tokens
        while len(self._running) < self._max_running and (entry := self._waiting.first()) is not None:
            request = entry.request
            more = self._engine.tokens_needed(request)
            if (self._running and tokens + more > budget) or not self._engine.has_room(request):
                break
            self._engine.add(request)
            tokens += more
            entry.started = self._clock()
            self._waiting.remove(request.request_id)
            self._running[request.request_id] = entry
        return tokens
