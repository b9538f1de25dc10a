"""A closed loop: a number of clients, each of which asks again as soon as its list has come.

Invariant: a request is timed from before it is made until the step that finished it has returned, so waiting for the longer steps of a
batch is part of its time, as it is for a user.
"""

import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.endings import BenchmarkError
from verification.engine.engine import SpeculativeBeamEngine
from verification.request import BeamRequest
from verification.result import BeamResult
from verification.slots.pool import OutOfSlots


@dataclass(frozen=True)
class Answer:
    """A finished request.

    Attributes:
        seconds: from asking to the list.
        tokens: its share of the tokens in the target's forwards; all of them where it ran alone.
    """

    result: BeamResult
    seconds: float
    tokens: float


@dataclass
class _Asked:
    """A request under way."""

    started: float
    tokens: float = 0.0


def closed_loop(engine: SpeculativeBeamEngine, requests: Iterable[BeamRequest], counted: int, clients: int) -> list[Answer]:
    """Run requests until the first `counted` have their lists, and return these in the order asked.

    Args:
        requests: made one by one as clients ask; those after the first `counted` only keep the batch full.
        clients: how many run at once.

    Raises:
        BenchmarkError: there is too little memory for keys and values for so many.
    """
    waiting = iter(requests)
    names: list[str] = []
    running: dict[str, _Asked] = {}
    answers: dict[str, Answer] = {}
    while len(names) < counted or any(name not in answers for name in names[:counted]):
        for _ in range(clients - len(running)):
            asked = _Asked(time.perf_counter())
            for request in itertools.islice(waiting, 1):
                try:
                    engine.add(request)
                except OutOfSlots as error:
                    raise BenchmarkError(
                        f"The memory for keys and values is too little for {clients} at once, each a list of {request.k}: ask for fewer "
                        "at a time, or for shorter lists."
                    ) from error
                names.append(request.request_id)
                running[request.request_id] = asked
        report = engine.step()
        now = time.perf_counter()
        for asked in running.values():
            asked.tokens += report.tokens / len(running)
        for result in report.finished:
            asked = running.pop(result.request_id)
            answers[result.request_id] = Answer(result, now - asked.started, asked.tokens)
    for name in running:
        engine.cancel(name)
    return [answers[name] for name in names[:counted]]
