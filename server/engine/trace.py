"""What the engine's steps cost, kept for as long as a traced request may ask.

Invariant: every running request takes part in every step, so a request's steps are those that ended after it was taken up; and of a server
without traces nothing is kept.
"""

from collections import deque

from server.messages import StepTime
from server.scheduling.scheduler import FinishedRequest
from verification.request import StepReport

# A list takes as many steps as an identifier has tokens, at most; the rest is for requests that a step was too full for.
_KEPT = 64


class StepTrace:
    """The newest steps, and which requests want to know of them."""

    def __init__(self) -> None:
        self._wanted: set[str] = set()
        self._steps: deque[tuple[float, StepTime]] = deque(maxlen=_KEPT)

    def want(self, request_id: str) -> None:
        """Keeps steps for this request from now on."""
        self._wanted.add(request_id)

    def forget(self, request_id: str) -> None:
        """The request has ended without a list."""
        self._wanted.discard(request_id)

    def add(self, report: StepReport, now: float) -> None:
        """Notes a step that has just ended, at `now` in monotonic seconds."""
        if self._wanted:
            self._steps.append((now, StepTime(now - report.seconds, report.draft_seconds, report.target_seconds)))

    def take(self, request: FinishedRequest, now: float) -> tuple[StepTime, ...]:
        """The steps of a request that finished at `now`, if it wanted them."""
        if request.result.request_id not in self._wanted:
            return ()
        self._wanted.remove(request.result.request_id)
        taken_up = now - request.engine_seconds
        return tuple(step for ended, step in self._steps if ended > taken_up)
