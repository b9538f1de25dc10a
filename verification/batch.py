"""Continuous batching without a queue: many lists from one engine in this process, as many at a time as fill a forward.

Invariant: lists come in the order of the requests, however many share a forward. Whether all lists are taken, the caller stops early or a
request fails, no request stays behind in the engine.

Callers may be in several threads, or several at a time in one thread. One of them at a time advances the engine, never while it has a list
in hand, and leaves the others their lists. Engines on the same models share their slots, so a caller that finds too few of them free
advances the other engines as well. Once a step was interrupted, all callers are told so.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import TypeVar
from weakref import WeakSet

from drafting.errors import SetupError
from verification.engine.engine import SpeculativeBeamEngine
from verification.lengths import width_refusal
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


class RequestTooLarge(SetupError):
    """A request that the memory for keys and values does not hold, even where nothing else runs; the message is a sentence."""

    def __init__(self, engine: SpeculativeBeamEngine, beam_width: int) -> None:
        slots = engine.slots
        sentence = (
            f"The memory for keys and values holds {slots.prompts.total} tokens of prompts and {slots.nodes.total} prefixes of beams, too "
            "few for this request: raise kv_memory_gib (--kv-memory-gib), or ask for less."
        )
        # More memory gives no room to beams wider than the engine was made for.
        super().__init__(width_refusal(beam_width, engine.max_beam_width) or sentence)


Answer = BeamResult | ScoresNotFinite
# What is to be yielded for each request, in order; None until it is known.
Pending = dict[str, Answer | Other | None]


@dataclass(frozen=True)
class EngineTurns:
    """The state that callers of all engines on the same models share.

    Attributes:
        lock: held while an engine works. It's a plain lock, for Ctrl-C can't come between taking it and entering its context.
        engines: all that anybody still has.
        abandoned: the engines and requests that nobody waits for any more.
    """

    lock: Lock = field(default_factory=Lock)
    engines: "WeakSet[SharedEngine]" = field(default_factory=WeakSet)
    abandoned: "deque[tuple[SharedEngine, str]]" = field(default_factory=deque)

    def tidy(self) -> None:
        """Cancel what is abandoned; call it with the lock held, between two steps."""
        while self.abandoned:
            engine, request_id = self.abandoned[0]
            engine.cancel(request_id)
            self.abandoned.popleft()

    def tidy_if_free(self) -> None:
        """Cancel what is abandoned, or leave it to whoever holds the lock, who comes here next.

        Reason: it may be this thread, for the garbage collector closes iterations within a step, too.
        """
        while self.abandoned and not self.lock.locked():
            with self.lock:
                self.tidy()


class SharedEngine:
    """An engine that several callers use, each as if it was alone.

    Attributes:
        turns: shared by all engines on the same models.
    """

    def __init__(self, engine: SpeculativeBeamEngine, turns: EngineTurns) -> None:
        self.turns = turns
        self._engine = engine
        # Of all requests whose answers nobody has taken; None until they are known.
        self._answers: dict[str, Answer | None] = {}
        with turns.lock:
            turns.engines.add(self)

    def search_in_order(self, requests: Iterable[BeamRequest | Other]) -> Iterator[Answer | Other]:
        """Search the requests, which are asked for as the engine has room, and yield their lists in the same order.

        Args:
            requests: with ids that no other has whose answer is awaited; anything else among them is yielded in its place.

        Raises:
            RequestTooLarge: a request finds too little memory even alone.
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
                with self.turns.lock:
                    self.turns.tidy()
                    self._advance(pending)
                self.turns.tidy_if_free()
                yield from _leading(pending)
        finally:
            # What is answered has left the engine, and another request may have its id by now.
            self.turns.abandoned.extend((self, request_id) for request_id, answer in pending.items() if answer is None)
            self.turns.tidy_if_free()

    def cancel(self, request_id: str) -> None:
        """Forget a request, whether it runs or is answered; call it with the lock held, between two steps."""
        self._engine.cancel(request_id)
        self._answers.pop(request_id, None)

    def _add(self, request: BeamRequest, pending: Pending[Other]) -> None:
        with self.turns.lock:
            self.turns.tidy()
            if request.request_id in self._answers or request.request_id in pending:
                # Of two requests of one id each caller may get the other's list, and what one gives up the other waits for in vain.
                raise ValueError(f"The answer to a request with id {request.request_id!r} is still awaited: give each an id of its own.")
            if not self._engine.fits(request):
                raise RequestTooLarge(self._engine, request.beam_width)
            while (busy := self._in_the_way(request)) is not None:
                busy._advance(pending if busy is self else {})
            # Noted first: what an interruption leaves in the engine is cancelled.
            pending[request.request_id] = None
            self._answers[request.request_id] = None
            self._engine.add(request)
        self.turns.tidy_if_free()

    def _advance(self, pending: Pending[Other]) -> None:
        """Take the answers that others have left for these requests, or else make a step."""
        if not self._ready(pending):
            # What ends between the step and the last of its answers would leave others waiting for lists that are lost.
            with self._engine.slots:
                report = self._engine.step(scored_nodes=MOST_TOKENS)
                self._answers.update((result.request_id, result) for result in report.finished)
                self._answers.update((request_id, ScoresNotFinite()) for request_id in report.failed)
        for request_id in self._ready(pending):
            pending[request_id] = self._answers.pop(request_id)

    def _ready(self, pending: Pending[Other]) -> list[str]:
        """Those of these requests whose answers are known and not yet taken."""
        return [request_id for request_id in pending if self._answers.get(request_id) is not None]

    def _in_the_way(self, request: BeamRequest) -> "SharedEngine | None":
        """The engine that has to go on before a request can be added; another one only where this one is idle."""
        if self._engine.running:
            return None if self._has_room(request) else self
        if self._engine.has_room(request):
            return None
        return next((other for other in self.turns.engines if other._engine.running), None)

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
