"""`PendingRequest`: a request from its admission to its end, as the API process knows it.

Invariant: its outcome is told once, to the one who waits for it or is about to.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from server.messages import FinishedList, StepRecord
from server.scheduling.kinds import Kind
from server.scheduling.order import due
from server.submit import Submit


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request from its admission to its end, with all that the API process knows of it; the queue is ordered by `due`.

    Attributes:
        submit: what the engine is asked.
        work: tokens that it is foreseen to need, without those of `text` and `scored`.
        text: tokens of text that it is foreseen to write before its list, and has not written yet; only requests that write text wait for
            them.
        scored: tokens of candidates that take several steps and are not computed yet; lists leave them a fixed part of each step at least.
        slots: KV slots that it needs while it writes text; 0 if it writes none.
        is_wide: True if a level of its beams is computed in pieces (`server.scheduling.wide`).
        has_place: True once it has a place among the requests of its `kind`.
        unread: True while its stored history is being read.
        steps: the newest steps of the engine while the request was pending, if it is traced; else None.
        result: the request's list, to be awaited; None until the engine is given the request.
        failure: why there will be no list, if that is known before the engine is given the request.
        due: the time that its position in the queue follows from (`server.scheduling.order`).
        kind: the kind whose places it needs one of; None if it needs none.
    """

    submit: Submit
    work: int
    text: int = 0
    scored: int = 0
    slots: int = 0
    is_wide: bool = False
    has_place: bool = False
    unread: bool = False
    steps: deque[StepRecord] | None = None
    result: "asyncio.Future[FinishedList] | None" = None
    failure: Exception | None = None
    due: float = field(init=False)
    kind: Kind | None = field(init=False)

    def __post_init__(self) -> None:
        self.due = due(self.submit.deadline, self.submit.submitted)
        self.kind = Kind.TEXT if self.submit.think else Kind.CAPPED if self.submit.diversity else None

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
