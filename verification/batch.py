"""Continuous batching without a queue: many lists from one engine in this process, as many at a time as fill a forward.

Invariant: lists come in the order of the requests, however many share a forward, and whether all are taken, the caller stops early or one
fails, no request stays behind in the engine. Callers may be in several threads, or several at a time in one: one of them works on the
engine at a time, never while its caller has a list in hand, and whoever advances it leaves the others their lists. Once a step was
interrupted, all callers are told so.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from threading import Lock, get_ident
from typing import TypeVar

from drafting.errors import SetupError
from verification.engine.engine import SpeculativeBeamEngine
from verification.request import BeamRequest
from verification.result import BeamResult

MOST_TOKENS = 2048
MOST_RUNNING = 64

Other = TypeVar("Other")


class ScoresNotFinite(SetupError):
    """A list that can't be made, because of what the model says; the message is a sentence."""

    def __init__(self) -> None:
        super().__init__(
            "The model's scores were not finite (NaN or infinite), so there is no list: its weights are damaged, or its numbers overflow "
            "in this precision (try another dtype)."
        )


Answer = BeamResult | ScoresNotFinite
# What is to be yielded for each request, in order; None until it is known.
Pending = dict[str, Answer | Other | None]


class EngineLock:
    """A lock that knows whether it is this thread that holds it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._holder: int | None = None

    @property
    def is_mine(self) -> bool:
        """True if this thread holds it."""
        return self._holder == get_ident()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._holder = get_ident()

    def __exit__(self, *_: object) -> None:
        self._holder = None
        self._lock.release()


class SharedEngine:
    """An engine that several callers use, each as if it was alone.

    Attributes:
        lock: held while the engine works, and by all engines on the same models.
    """

    def __init__(self, engine: SpeculativeBeamEngine, lock: EngineLock) -> None:
        self.lock = lock
        self._engine = engine
        self._answers: dict[str, Answer] = {}
        self._abandoned: deque[str] = deque()

    def search_in_order(self, requests: Iterable[BeamRequest | Other]) -> Iterator[Answer | Other]:
        """Search the requests, which are asked for as the engine has room, and yield their lists in the same order.

        Args:
            requests: with ids of their own; anything else among them is yielded in its place.

        Raises:
            OutOfSlots, EngineSpoilt, ValueError: as `SpeculativeBeamEngine.add`, and all that `requests` raises.
        """
        pending: Pending[Other] = {}
        try:
            for number, request in enumerate(requests):
                if isinstance(request, BeamRequest):
                    self._add(request, pending)
                else:
                    pending[f"number {number}"] = request
                yield from _leading(pending)
            while pending:
                with self.lock:
                    self._forget_abandoned()
                    self._advance(pending)
                yield from _leading(pending)
        finally:
            self._abandoned.extend(pending)
            # The garbage collector may close this generator within a step, in the thread that makes it: then what comes next cancels.
            if not self.lock.is_mine:
                with self.lock:
                    self._forget_abandoned()

    def _forget_abandoned(self) -> None:
        """Cancel what nobody waits for any more; call it with the lock held, between two steps."""
        while self._abandoned:
            request_id = self._abandoned.popleft()
            self._engine.cancel(request_id)
            self._answers.pop(request_id, None)

    def _add(self, request: BeamRequest, pending: Pending[Other]) -> None:
        with self.lock:
            self._forget_abandoned()
            while self._engine.running and not self._has_room(request):
                self._advance(pending)
            self._engine.add(request)
            pending[request.request_id] = None

    def _advance(self, pending: Pending[Other]) -> None:
        """Take the answers that others have left for these requests, or else make a step."""
        if not self._answers.keys() & pending.keys():
            report = self._engine.step()
            self._answers.update((result.request_id, result) for result in report.finished)
            self._answers.update((request_id, ScoresNotFinite()) for request_id in report.failed)
        for request_id in self._answers.keys() & pending.keys():
            pending[request_id] = self._answers.pop(request_id)

    def _has_room(self, request: BeamRequest) -> bool:
        tokens = self._engine.next_tokens() + self._engine.tokens_needed(request)
        return self._engine.running < MOST_RUNNING and tokens <= MOST_TOKENS and self._engine.has_room(request)


def _leading(pending: Pending[Other]) -> Iterator[Answer | Other]:
    """Take out the answers that no unfinished request stands before."""
    for request_id, answer in list(pending.items()):
        if answer is None:
            return
        del pending[request_id]
        yield answer
