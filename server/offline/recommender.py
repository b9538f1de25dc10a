"""Recommendations without a server: many users through one engine in this process.

Invariant: answers come out in the order of the questions, one each, however many share a forward; a question that can't be answered costs
its own answer only.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from drafting.beam.rule import STRICT, SearchRule
from server.scheduling.budget import StepBudget
from server.scheduling.scheduler import SpeculativeBeamScheduler
from verification.recommender import Recommender
from verification.request import BeamResult

_MAX_RUNNING = 64
_MAX_TOKENS_PER_STEP = 2048


@dataclass(frozen=True)
class Question:
    """One list to make; items are catalog indices, oldest first."""

    history: Sequence[int]
    k: int
    beam_width: int | None = None
    excluded: Sequence[int] = ()
    rule: SearchRule = STRICT


class OfflineRecommender:
    """Feeds questions to the engine of a recommender, keeping its forwards full."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self._scheduler = SpeculativeBeamScheduler(recommender.engine, StepBudget(_MAX_TOKENS_PER_STEP), max_running=_MAX_RUNNING)

    def answer(self, questions: Iterable[Question | str]) -> Iterator[BeamResult | str]:
        """The list for each question, or a sentence for one that can't be answered.

        Args:
            questions: a string is the sentence of a question that was already found to be unanswerable, and is passed on in its place.
        """
        order: deque[str | int] = deque()
        finished: dict[int, BeamResult] = {}
        for number, question in enumerate(questions):
            order.append(question if isinstance(question, str) else self._submit(number, question))
            # As many in the queue again as run, so that a place that becomes free is filled at once.
            while self._scheduler.waiting >= _MAX_RUNNING:
                self._step(finished)
            yield from self._leading(order, finished)
        while self._scheduler.busy:
            self._step(finished)
            yield from self._leading(order, finished)
        yield from self._leading(order, finished)

    def _submit(self, number: int, question: Question) -> int | str:
        try:
            request = self._recommender.request(
                str(number), question.history, question.k, question.beam_width, question.excluded, question.rule
            )
            self._scheduler.submit(request, math.inf)
        except ValueError as error:
            return str(error)
        return number

    def _step(self, finished: dict[int, BeamResult]) -> None:
        for request in self._scheduler.step().finished:
            finished[int(request.result.request_id)] = request.result

    def _leading(self, order: deque[str | int], finished: dict[int, BeamResult]) -> Iterator[BeamResult | str]:
        """The answers that no unfinished one stands before."""
        while order:
            first = order[0]
            if isinstance(first, str):
                yield first
            elif first in finished:
                yield finished.pop(first)
            else:
                return
            order.popleft()
