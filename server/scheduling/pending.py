"""The lists that the API process waits for.

Invariant: every request that is added ends exactly once: its future gets the list, a failure, or the engine's end, or its caller drops it.
And the queue that admission is judged by holds exactly the requests that are here.
"""

import asyncio
import time

from server.errors import EngineUnavailable, QueueFull, RequestRefused
from server.messages import FailedList, FinishedList, Progress, Ready, Submit
from server.scheduling.admission import Admission


class PendingLists:
    """Requests in the hands of one engine process, by id; empty while there is none."""

    def __init__(self, most: int) -> None:
        """`most` is how many requests may be in an engine's hands, waiting and running together."""
        self._most = most
        self._futures: dict[str, asyncio.Future[FinishedList]] = {}
        self._admission: Admission | None = None

    def __len__(self) -> int:
        return len(self._futures)

    @property
    def wait_seconds(self) -> float:
        """How long the engine will be busy with what it has."""
        return 0.0 if self._admission is None else self._admission.wait_seconds

    def open(self, ready: Ready) -> None:
        """Takes requests for an engine that has just become ready."""
        self._admission = Admission(ready)

    def check(self, request: Submit) -> None:
        """Whether a request may be added now; with an empty history, whether it could be added with any.

        Raises:
            QueueFull: too many requests are pending.
            TooLate: its list, or another because of it, would be late.
        """
        if len(self._futures) >= self._most:
            raise QueueFull(
                f"{len(self._futures)} requests are already waiting or running, which is all that this server takes on.",
                max(1, round(self.wait_seconds)),
            )
        if self._admission is not None:
            self._admission.check(request, time.monotonic())

    def add(self, request: Submit) -> "asyncio.Future[FinishedList]":
        """The list to wait for.

        Raises:
            QueueFull, TooLate: as `check`.
        """
        self.check(request)
        if self._admission is not None:
            self._admission.enter(request)
        future: asyncio.Future[FinishedList] = asyncio.get_running_loop().create_future()
        self._futures[request.request_id] = future
        return future

    def drop(self, request_id: str) -> None:
        """Forgets a request, if it is still here."""
        self._futures.pop(request_id, None)
        if self._admission is not None:
            self._admission.leave(request_id)

    def deliver(self, progress: Progress) -> None:
        """Gives everyone what the engine has to say."""
        if self._admission is not None:
            self._admission.learn(progress)
        for finished in progress.finished:
            self._settle(finished)
        for failed in progress.failed:
            self._settle(failed)

    def abandon(self, sentence: str, retry_after_seconds: int) -> None:
        """Tells everyone who waits that no list will come, and takes no requests until opened again."""
        self._admission = None
        futures, self._futures = self._futures, {}
        for future in futures.values():
            if not future.done():
                future.set_exception(EngineUnavailable(sentence, retry_after_seconds))

    def _settle(self, outcome: FinishedList | FailedList) -> None:
        future = self._futures.get(outcome.request_id)
        self.drop(outcome.request_id)
        if future is None or future.done():
            return
        if isinstance(outcome, FinishedList):
            future.set_result(outcome)
        elif outcome.sentence is None:
            future.set_exception(TimeoutError())
        else:
            future.set_exception(RequestRefused(outcome.sentence))
