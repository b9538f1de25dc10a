"""Continuous batching without a queue: many lists from one engine in this process, as many at a time as fill a forward.

Invariant: lists come in the order of the requests, however many share a forward, and whether all are taken, the caller stops early or one
fails, no request stays behind in the engine.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from verification.engine.engine import SpeculativeBeamEngine
from verification.request import BeamRequest
from verification.result import BeamResult

MOST_TOKENS = 2048
MOST_RUNNING = 64

Other = TypeVar("Other")


def search_in_order(engine: SpeculativeBeamEngine, requests: Iterable[BeamRequest | Other]) -> Iterator[BeamResult | Other]:
    """Search the requests, which are asked for as the engine has room, and yield their lists in the same order.

    Args:
        requests: with ids of their own; anything else among them is yielded in its place.

    Raises:
        OutOfSlots, ValueError: as `SpeculativeBeamEngine.add`, and all that `requests` raises.
    """
    pending: dict[str, BeamResult | Other | None] = {}
    try:
        for number, request in enumerate(requests):
            if isinstance(request, BeamRequest):
                while engine.running and not _has_room(engine, request):
                    pending.update((result.request_id, result) for result in engine.step().finished)
                engine.add(request)
                pending[request.request_id] = None
            else:
                pending[f"number {number}"] = request
            yield from _leading(pending)
        while pending:
            pending.update((result.request_id, result) for result in engine.step().finished)
            yield from _leading(pending)
    finally:
        for request_id in pending:
            engine.cancel(request_id)


def _has_room(engine: SpeculativeBeamEngine, request: BeamRequest) -> bool:
    tokens = engine.next_tokens() + engine.tokens_needed(request)
    return engine.running < MOST_RUNNING and tokens <= MOST_TOKENS and engine.has_room(request)


def _leading(pending: dict[str, BeamResult | Other | None]) -> Iterator[BeamResult | Other]:
    """Take out the answers that no unfinished request stands before."""
    for request_id, answer in list(pending.items()):
        if answer is None:
            return
        del pending[request_id]
        yield answer
