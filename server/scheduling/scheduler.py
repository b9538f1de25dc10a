"""The scheduler: continuous batching of requests in steps of the engine.

Invariant: a request is in exactly one of two queues, waiting or running, from `submit` until it is finished, failed, timed out or
cancelled, and whichever of these ends it, the engine knows, so its KV slots are free at the next step.

Order: the request that is due first (`server.scheduling.order`) is taken up first, ties by arrival. Reason: under load, the most urgent
first keeps the most deadlines. Tokens decide how many requests share a step (`StepBudget`), because they are what takes time: the tokens of
the next step, and those of later steps, in which the widest levels of all running lists may meet (except lists behind texts, which begin
much later and at different times). A request can be overtaken in two ways, and neither lasts.

1. Requests of a kind (`server.scheduling.kinds`) wait while enough of it run. At most half of the running requests write text first, which
   takes many steps, on a quarter of the KV slots; at most half are other lists with caps, which may take many rounds; one has beams that
   fill a step (`server.scheduling.wide`); and `SCORES_TOGETHER` are for scores whose candidates take several steps, since scores have a
   fixed part of each step. A kind has its turn again as soon as one of its requests has ended.
2. A request that waits for KV slots is overtaken by lists of no kind, which end soon, for up to `OVERTAKEN_SECONDS`, and only as long as it
   would have to wait without them as well. So a large one that waits for a text to end does not stop the small ones at once, and a stream
   of these can't starve it.
"""

import time
from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from server.messages import FinishedList, PlacesLimit
from server.scheduling.budget import StepBudget
from server.scheduling.kinds import SCORES_TOGETHER, Kind, kinds_of, scored_tokens
from server.scheduling.order import AGEING_SECONDS, due
from server.scheduling.places import fits
from server.scheduling.step_engine import StepEngine
from server.scheduling.wide import level_tokens, piece_nodes, shared_budget
from verification.request import BeamRequest
from verification.result import BeamResult, StepReport

# Requests with a text may have one in so many of all KV slots, counted with the longest text that each may write; half of all slots may be
# those of nodes.
TEXT_SHARE = 4
# For so long, others may overtake a request that waits for KV slots. They end soon, so the request gets their slots within the other half
# of the time of ageing (`server.scheduling.order`), and from then on no later request is due before it.
OVERTAKEN_SECONDS = AGEING_SECONDS / 2
IDLE = StepReport((), tokens=0, seconds=0.0)


class RequestTooLargeError(ValueError):
    """A request that the engine could not hold even if it were alone; the message is a sentence."""


class PlanRefusalError(ValueError):
    """A request that the engine's plan can't serve; the message is a sentence."""


@dataclass(slots=True, eq=False)
class ScheduledRequest:
    """A request on its way through the engine process, with all that is known of it there; times are seconds of the scheduler's clock.

    Attributes:
        deadline: time at which it is dropped.
        arrived: time at which it entered the queue.
        started: time at which the engine started it; 0 while it waits.
        overtook: True if it was started before another that was due first, and waited for KV slots.
    """

    request: BeamRequest
    deadline: float
    arrived: float
    started: float = 0.0
    overtook: bool = False

    @property
    def due(self) -> float:
        """The key by which the queue is ordered."""
        return due(self.deadline, self.arrived)

    def finish(self, result: BeamResult, now: float) -> FinishedList:
        """The finished list, with the times for which the request waited and ran."""
        return FinishedList(result, self.started - self.arrived, now - self.started)


@dataclass(frozen=True)
class ScheduledStep:
    """The result of one step of the scheduler.

    Attributes:
        finished: requests that this step completed.
        timed_out: ids of requests whose deadline had passed.
        report: report of the engine's step, with the requests that failed in it; `IDLE` if nothing ran.
        crowded: True if a request had to wait for a later step.
        placed: ids of requests that took a place among those that think, or among those with caps.
    """

    finished: tuple[FinishedList, ...]
    timed_out: tuple[str, ...]
    report: StepReport
    crowded: bool = False
    placed: tuple[str, ...] = ()


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
        self._waiting: list[ScheduledRequest] = []
        self._running: list[ScheduledRequest] = []

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests in the engine."""
        return len(self._running)

    @property
    def places_limit(self) -> PlacesLimit:
        """How many requests with a text may run together, and how many with caps, so that they leave the others enough."""
        return PlacesLimit(self._max_running // 2, self._engine.total_slots // TEXT_SHARE)

    @property
    def busy(self) -> bool:
        """True if another step has work to do."""
        return bool(self._waiting or self._running)

    def submit(self, request: BeamRequest, deadline: float, arrived: float | None = None) -> None:
        """Put a request into the queue.

        Args:
            deadline: seconds of the clock after which the request is dropped.
            arrived: seconds of the clock from which its time in the queue counts; now by default.

        Raises:
            RequestTooLargeError: the engine has too few KV slots for it, even empty.
            PlanRefusalError: the engine's plan can't serve it.
            ValueError: its id is already taken.
        """
        if _find(self._waiting, request.request_id) or _find(self._running, request.request_id):
            raise ValueError(f"The request id {request.request_id!r} is already in use.")
        if not self._engine.fits(request):
            raise RequestTooLargeError(
                f"This request needs more KV slots than the engine has ({self._engine.total_slots} in all): ask for "
                f"{', or for '.join(_smaller(request))}, or give the server more KV memory."
            )
        if sentence := self._engine.refusal(request):
            raise PlanRefusalError(sentence)
        entry = ScheduledRequest(request, deadline, self._clock() if arrived is None else arrived)
        insort(self._waiting, entry, key=lambda other: other.due)

    def cancel(self, request_id: str) -> bool:
        """Forget a request; False if there is none of that id (any more)."""
        for queue in (self._waiting, self._running):
            if entry := _find(queue, request_id):
                self._drop(queue, entry)
                return True
        return False

    def forget(self, user: str) -> None:
        """Keep nothing of a user's requests, of those that wait or run either, which get their lists all the same."""
        for entry in self._waiting:
            if entry.request.cache_key == user:
                entry.request = entry.request.forgotten()
        self._engine.forget(user)

    def step(self) -> ScheduledStep:
        """Drop what is late, admit what fits and run one step of the engine."""
        timed_out = self._drop_late()
        before = len(self._running)
        self._admit()
        begun = [entry.request for entry in self._running[before:]]
        placed = tuple(request.request_id for request in begun if request.think is not None or request.caps)
        if not self._running:
            return ScheduledStep((), timed_out, IDLE)
        most_nodes = self._most_nodes
        tokens = self._engine.next_tokens(most_nodes)
        report = self._engine.step(scored_nodes=self._scored_nodes, most_nodes=most_nodes)
        self._budget.learn(tokens + report.scored_nodes, report.seconds)
        finished = tuple(self._finish(result) for result in report.finished)
        self._running = [entry for entry in self._running if entry.request.request_id not in report.failed]
        return ScheduledStep(finished, timed_out, report, crowded=bool(self._waiting), placed=placed)

    def _drop_late(self) -> tuple[str, ...]:
        now = self._clock()
        late = [(queue, entry) for queue in (self._waiting, self._running) for entry in queue if entry.deadline <= now]
        for queue, entry in late:
            self._drop(queue, entry)
        return tuple(entry.request.request_id for _, entry in late)

    def _admit(self) -> None:
        """Take up what fits into the next step, and into those after it, in the queue's order."""
        budget = self._budget.tokens
        tokens, levels = self._engine.next_tokens(piece_nodes(budget)), sum(self._level_tokens(entry.request) for entry in self._running)
        is_shared = any(Kind.WIDE in self._kinds(entry.request) for entry in self._running)
        overtaken: ScheduledRequest | None = None
        for entry in self._candidates():
            kinds = self._kinds(entry.request)
            if overtaken and kinds:
                continue
            more, level = self._engine.tokens_needed(entry.request), self._level_tokens(entry.request)
            scores = self._scored_nodes if any(other.request.scored is not None for other in (*self._running, entry)) else 0
            room = (shared_budget(budget) if is_shared or Kind.WIDE in kinds else budget) - scores
            # Where only scores run, they put no tokens of their own into the step, and keep none that is too large from running.
            if (tokens and tokens + more > room) or (levels and level and levels + level > room):
                break
            if not self._engine.has_room(entry.request):
                if overtaken or not self._may_be_overtaken(entry):
                    break
                overtaken = entry
                continue
            self._engine.add(entry.request)
            tokens, levels, is_shared = tokens + more, levels + level, is_shared or Kind.WIDE in kinds
            entry.started, entry.overtook = self._clock(), overtaken is not None
            self._waiting.remove(entry)
            self._running.append(entry)

    def _level_tokens(self, request: BeamRequest) -> int:
        """The most tokens that a level of the request puts into later steps; 0 if it writes text first, as its levels come much later."""
        return 0 if request.think is not None else level_tokens(request, self._budget.tokens)

    @property
    def _most_nodes(self) -> int:
        """The most nodes of one request that the next step computes."""
        return piece_nodes(self._budget.tokens, is_alone=len(self._running) + len(self._waiting) == 1)

    def _candidates(self) -> Iterator[ScheduledRequest]:
        """The waiting requests that may run beside the running ones, in the queue's order, without those that wait for their kind."""
        full: set[Kind] = set()
        for entry in tuple(self._waiting):
            if len(self._running) == self._max_running:
                return
            kinds = self._kinds(entry.request)
            if not full & kinds and all(self._may_run(kind, entry.request) for kind in kinds):
                yield entry
            else:
                # None overtakes another with which it shares a kind, so a request that waits for two kinds gets both.
                full |= kinds

    def _may_be_overtaken(self, entry: ScheduledRequest) -> bool:
        """Whether a request that waits for KV slots has not waited for long, and would have to wait even without those that overtook."""
        if self._clock() - entry.arrived >= OVERTAKEN_SECONDS:
            return False
        return not self._engine.has_room(entry.request, [other.request for other in self._running if other.overtook])

    def _kinds(self, request: BeamRequest) -> set[Kind]:
        return kinds_of(request, self._budget.tokens)

    def _may_run(self, kind: Kind, request: BeamRequest) -> bool:
        """Whether one more request of a kind leaves the other requests enough."""
        together = [entry.request for entry in self._running if kind in self._kinds(entry.request)]
        if kind is Kind.TEXT:
            slots = request.most_tokens + sum(other.most_tokens for other in together)
            return fits(self.places_limit, 1 + len(together), slots)
        if kind is Kind.CAPPED:
            return fits(self.places_limit, 1 + len(together), 0)
        return len(together) < (1 if kind is Kind.WIDE else SCORES_TOGETHER)

    @property
    def _scored_nodes(self) -> int:
        """The prefixes of candidates in a step."""
        return scored_tokens(self._budget.tokens)

    def _finish(self, result: BeamResult) -> FinishedList:
        entry = _find(self._running, result.request_id)
        assert entry is not None
        self._running.remove(entry)
        return entry.finish(result, self._clock())

    def _drop(self, queue: list[ScheduledRequest], entry: ScheduledRequest) -> None:
        queue.remove(entry)
        if queue is self._running:
            self._engine.cancel(entry.request.request_id)


def _smaller(request: BeamRequest) -> Iterator[str]:
    """Ways in which the request could be changed to need fewer slots, in words."""
    yield "a smaller beam width" if request.scored is None else "scores of fewer items"
    yield "a shorter history"
    if request.think is not None:
        yield "a shorter text before the list"
    if request.reserved is not None:
        yield "a list without places for fresh items"
    if request.blended_nodes:
        yield "fewer candidates to blend with"


def _find(queue: list[ScheduledRequest], request_id: str) -> ScheduledRequest | None:
    return next((entry for entry in queue if entry.request.request_id == request_id), None)
