"""From a request body to its answer: looks up names, reads the stored history, asks the engine, writes the list.

Invariant: the engine only ever sees indices of the catalog whose version the answer names. What a client names must be in that catalog;
what a stored history names may have left it, and is then passed over.
"""

import asyncio
import time
import uuid
from collections.abc import Iterable
from typing import Any

from drafting.rule import SearchRule, Verification
from server.histories import Event, HistoryUnavailable
from server.lists import item_lines, usage_lines
from server.messages import FinishedList, Submit
from server.problems import ProblemError, unknown_item, unknown_user
from server.refusals import EngineUnavailable
from server.rules import RELAXED_NOTE, choose_rule, rule_lines
from server.schemas import RecommendationRequest
from server.services import Services

# A stored history is read a little deeper than the model looks, to fill the window although some of its items have left the catalog.
_READ_AHEAD = 2


class RecommendationService:
    """Answers recommendation requests."""

    def __init__(self, services: Services) -> None:
        self._model = services.settings.model_name
        self._timeout_ms = services.settings.timeout_ms
        self._verification = services.settings.verification
        self._catalog = services.catalog
        self._engine = services.engine
        self._histories = services.histories
        self._metrics = services.metrics
        self._drain = services.drain
        self._tracing = services.tracing
        self._metrics.health.open_catalog(self._catalog.version, len(self._catalog))

    async def recommend(self, body: RecommendationRequest) -> dict[str, Any]:
        """The answer to a request, as `schemas.RecommendationAnswer` describes it.

        Raises:
            ProblemError: an unknown item or user, a user of whose items none is in the catalog, or a rule that makes no sense.
            EngineUnavailable, QueueFullError, TooLateError, RequestRefusedError, HistoryUnavailable: as they say.
            TimeoutError: the request's timeout passed while the engine had it.
        """
        with self._drain.request(), self._metrics.refusals():
            return await self._recommend(body, time.monotonic())

    async def _recommend(self, body: RecommendationRequest, started: float) -> dict[str, Any]:
        deadline = started + (body.timeout_ms or self._timeout_ms) / 1000
        rule = self._rule(body)
        # Judged without a history first: under overload nobody should wait for the history store only to be refused then.
        self._engine.check(self._submit(body, rule, [], [], deadline, started))
        excluded = set(self._indices(body.exclude, "exclude"))
        with self._tracing.part("history"):
            history = await self._history(body, deadline)
        read = time.monotonic()
        if body.exclude_history:
            excluded.update(history)
        submit = self._submit(body, rule, history[-self._max_items() - 1 :], sorted(excluded), deadline, read)
        async with asyncio.timeout(deadline - read):
            finished = await self._engine.search(submit)
        self._tracing.record_engine(finished)
        health = self._metrics.health
        health.observe_filters(exclude=bool(body.exclude), exclude_history=body.exclude_history)
        health.observe_list([item for item, _, _ in finished.items], history, short=_identifiers(finished) < body.k)
        return self._answer(body, rule, finished, started, read)

    def _submit(
        self, body: RecommendationRequest, rule: SearchRule, history: list[int], excluded: list[int], deadline: float, now: float
    ) -> Submit:
        return Submit(
            request_id=f"rec-{uuid.uuid4().hex}",
            history=history,
            k=body.k,
            beam_width=body.beam_width or body.k,
            excluded=excluded,
            deadline=deadline,
            submitted=now,
            verification=rule.verification,
            seed=rule.seed,
            temperature=rule.temperature,
            user=body.user_id,
            traced=self._tracing.recording,
        )

    def _answer(self, body: RecommendationRequest, rule: SearchRule, finished: FinishedList, started: float, read: float) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "id": finished.request_id,
            "model": self._model,
            "catalog_version": self._catalog.version,
            **rule_lines(rule),
            "items": item_lines(self._catalog, finished.items),
            "usage": usage_lines(finished.cost),
            "timing_ms": {
                "history": _milliseconds(read - started),
                "queue": _milliseconds(finished.queue_seconds),
                "engine": _milliseconds(finished.engine_seconds),
                "total": _milliseconds(time.monotonic() - started),
            },
        }
        if note := " ".join(self._notes(body, finished)):
            answer["note"] = note
        return answer

    def _rule(self, body: RecommendationRequest) -> SearchRule:
        try:
            return choose_rule(body.verification or self._verification, body.seed, body.temperature)
        except ValueError as error:
            raise ProblemError(422, "invalid-request", "Invalid request", str(error)) from error

    def _max_items(self) -> int:
        ready = self._engine.ready
        if ready is None:
            raise EngineUnavailable("The engine is still loading the model.", 1)
        return ready.max_items

    def _indices(self, item_ids: Iterable[str], field: str) -> list[int]:
        indices = []
        for item_id in item_ids:
            index = self._catalog.index_of(item_id)
            if index is None:
                raise unknown_item(item_id, field)
            indices.append(index)
        return indices

    async def _history(self, body: RecommendationRequest, deadline: float) -> list[int]:
        if body.user_id is None:
            return self._indices(body.history or (), "history")
        limit = None if body.exclude_history else _READ_AHEAD * self._max_items()
        indices = await self._stored(body.user_id, limit, deadline)
        if not indices and limit is not None:
            indices = await self._stored(body.user_id, None, deadline)
        if not indices:
            sentence = f"None of the stored items of user {body.user_id!r} is in the catalog (version {self._catalog.version})."
            raise ProblemError(422, "stale-history", "Stale history", sentence)
        return indices

    async def _stored(self, user_id: str, limit: int | None, deadline: float) -> list[int]:
        with self._metrics.history_operation("read"):
            events = await self._read(user_id, limit, deadline)
        if not events:
            raise unknown_user(user_id)
        indices = (self._catalog.index_of(event.item_id) for event in events)
        return [index for index in indices if index is not None]

    async def _read(self, user_id: str, limit: int | None, deadline: float) -> list[Event]:
        # The store keeps to a timeout of its own, but a client may be less patient; what it waited for in vain was the store either way.
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self._histories.read(user_id, limit)
        except TimeoutError as error:
            raise HistoryUnavailable("The history store did not answer within the timeout of a request.") from error

    def _notes(self, body: RecommendationRequest, finished: FinishedList) -> Iterable[str]:
        if finished.verification is Verification.RELAXED:
            yield RELAXED_NOTE
        if body.history is not None and len(body.history) > self._max_items():
            yield f"The model reads at most the newest {self._max_items()} of the {len(body.history)} items in the history."
        if (identifiers := _identifiers(finished)) < body.k:
            yield f"Only {identifiers} identifiers of the catalog were eligible, fewer than the {body.k} asked for."


def _identifiers(finished: FinishedList) -> int:
    return len({rank for _, _, rank in finished.items})


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)
