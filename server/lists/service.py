"""From a request body to its answer: looks up names, reads the stored history, asks the engine, writes the list.

Invariant: the engine only ever sees indices of the catalog whose version the answer names. What a client names must be in that catalog;
what a stored history names may have left it, and is then passed over.
"""

import asyncio
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drafting.beam.rule import SearchRule, Verification
from drafting.catalog.catalog import Catalog
from server.catalogs.filters import check_choice
from server.catalogs.store import ServedCatalog
from server.errors import (
    EngineUnavailable,
    HistoryUnavailable,
    InvalidRequest,
    StaleHistory,
    UnknownField,
    UnknownItem,
    UserNotFound,
    quoted,
)
from server.histories import Event
from server.lists.fresh_places import FreshItems, fresh_items, fresh_places
from server.lists.lines import item_lines, usage_lines
from server.lists.rules import RELAXED_NOTE, choose_rule, rule_lines
from server.messages import FilterChoice, FinishedList, FreshPlaces, Submit
from server.schemas.recommendations import RecommendationRequest
from server.services import Services

# A stored history is read a little deeper than the model looks, to fill the window although some of its items have left the catalog.
_READ_AHEAD = 2


@dataclass(frozen=True)
class _Terms:
    """What a list is to be, as the engine understands it."""

    rule: SearchRule
    filter: FilterChoice | None
    fresh: FreshPlaces | None


class RecommendationService:
    """Answers recommendation requests."""

    def __init__(self, services: Services) -> None:
        self._model = services.settings.model_name
        self._timeout_ms = services.settings.timeout_ms
        self._verification = services.settings.verification
        self._catalogs = services.catalogs
        self._engine = services.engine
        self._histories = services.histories
        self._metrics = services.metrics
        self._drain = services.drain
        self._tracing = services.tracing
        self._metrics.health.open_catalog(self._catalogs.active.name, len(self._catalogs.active.catalog))

    async def recommend(self, body: RecommendationRequest) -> dict[str, Any]:
        """The answer to a request, as `schemas.RecommendationAnswer` describes it.

        Raises:
            ServerError: as each kind of it says.
            TimeoutError: the request's timeout passed while the engine had it.
        """
        with self._drain.request(), self._metrics.refusals(), self._catalogs.lease() as served:
            return await self._recommend(body, served, time.monotonic())

    async def _recommend(self, body: RecommendationRequest, served: ServedCatalog, started: float) -> dict[str, Any]:
        deadline = started + (body.timeout_ms or self._timeout_ms) / 1000
        terms = self._terms(body, served)
        _check_fields(body.fields, served.catalog)
        # Judged without a history first: under overload nobody should wait for the history store only to be refused then.
        self._engine.check(self._submit("", body, served, terms, [], [], deadline, started))
        excluded = set(_indices(served.catalog, body.exclude, "exclude"))
        with self._tracing.part("history"):
            history = await self._history(body, served, deadline)
        read = time.monotonic()
        if body.exclude_history:
            excluded.update(history)
        request_id = f"rec-{uuid.uuid4().hex}"
        submit = self._submit(request_id, body, served, terms, history[-self._max_items() - 1 :], sorted(excluded), deadline, read)
        async with asyncio.timeout(deadline - read):
            finished = await self._engine.search(submit)
        self._tracing.record_engine(finished)
        health = self._metrics.health
        health.observe_filters(exclude=bool(body.exclude), exclude_history=body.exclude_history, named=terms.filter is not None)
        health.observe_list(served.name, [item for item, _, _ in finished.items], history, short=_identifiers(finished) < body.k)
        fresh = None if terms.fresh is None else fresh_items(terms.fresh, served.catalog, finished.items)
        if fresh is not None:
            health.observe_fresh(sum(fresh.fresh), short=fresh.missing > 0)
        return self._answer(body, served, terms.rule, finished, fresh, started, read)

    def _submit(
        self,
        request_id: str,
        body: RecommendationRequest,
        served: ServedCatalog,
        terms: _Terms,
        history: list[int],
        excluded: list[int],
        deadline: float,
        now: float,
    ) -> Submit:
        return Submit(
            request_id=request_id,
            history=history,
            k=body.k,
            beam_width=body.beam_width or body.k,
            excluded=excluded,
            deadline=deadline,
            submitted=now,
            verification=terms.rule.verification,
            seed=terms.rule.seed,
            temperature=terms.rule.temperature,
            user=body.user_id,
            filter=terms.filter,
            fresh=terms.fresh,
            catalog=served.handle,
            traced=self._tracing.recording,
        )

    def _answer(
        self,
        body: RecommendationRequest,
        served: ServedCatalog,
        rule: SearchRule,
        finished: FinishedList,
        fresh: FreshItems | None,
        started: float,
        read: float,
    ) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "id": finished.request_id,
            "model": self._model,
            "catalog_version": served.name,
            **rule_lines(rule),
            "items": item_lines(served.catalog, finished.items, body.fields, () if fresh is None else fresh.fresh),
            "usage": usage_lines(finished.cost),
            "timing_ms": {
                "history": _milliseconds(read - started),
                "queue": _milliseconds(finished.queue_seconds),
                "engine": _milliseconds(finished.engine_seconds),
                "total": _milliseconds(time.monotonic() - started),
            },
        }
        if note := " ".join(self._notes(body, finished, fresh)):
            answer["note"] = note
        return answer

    def _terms(self, body: RecommendationRequest, served: ServedCatalog) -> _Terms:
        rule = self._rule(body)
        fresh = None if body.fresh is None else fresh_places(body.fresh, served.catalog, rule)
        return _Terms(rule, _filter(body, served), fresh)

    def _rule(self, body: RecommendationRequest) -> SearchRule:
        try:
            return choose_rule(body.verification or self._verification, body.seed, body.temperature)
        except ValueError as error:
            raise InvalidRequest(str(error)) from error

    def _max_items(self) -> int:
        ready = self._engine.ready
        if ready is None:
            raise EngineUnavailable("The engine is still loading the model.", 1)
        return ready.max_items

    async def _history(self, body: RecommendationRequest, served: ServedCatalog, deadline: float) -> list[int]:
        if body.user_id is None:
            return _indices(served.catalog, body.history or (), "history")
        limit = None if body.exclude_history else _READ_AHEAD * self._max_items()
        indices = await self._stored(body.user_id, served, limit, deadline)
        if not indices and limit is not None:
            indices = await self._stored(body.user_id, served, None, deadline)
        if not indices:
            raise StaleHistory(f"None of the stored items of user {body.user_id!r} is in the catalog (version {served.name}).")
        return indices

    async def _stored(self, user_id: str, served: ServedCatalog, limit: int | None, deadline: float) -> list[int]:
        with self._metrics.history_operation("read"):
            events = await self._read(user_id, limit, deadline)
        if not events:
            raise UserNotFound(user_id)
        indices = served.catalog.indices_of([event.item_id for event in events])
        return [int(index) for index in indices[indices >= 0]]

    async def _read(self, user_id: str, limit: int | None, deadline: float) -> list[Event]:
        # The store keeps to a timeout of its own, but a client may be less patient; what it waited for in vain was the store either way.
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self._histories.read(user_id, limit)
        except TimeoutError as error:
            raise HistoryUnavailable("The history store did not answer within the timeout of a request.") from error

    def _notes(self, body: RecommendationRequest, finished: FinishedList, fresh: FreshItems | None) -> Iterable[str]:
        if finished.verification is Verification.RELAXED:
            yield RELAXED_NOTE
        if body.history is not None and len(body.history) > self._max_items():
            yield f"The model reads at most the newest {self._max_items()} of the {len(body.history)} items in the history."
        if (identifiers := _identifiers(finished)) < body.k:
            yield f"Only {identifiers} identifiers of the catalog were eligible, fewer than the {body.k} asked for."
        if body.fresh is not None and fresh is not None and fresh.missing:
            there = body.fresh.min - fresh.missing
            yield f"Only {there} identifiers of fresh items were eligible, fewer than the {body.fresh.min} places for them."


def _filter(body: RecommendationRequest, served: ServedCatalog) -> FilterChoice | None:
    if (named := body.filter) is None:
        return None
    choice = FilterChoice(tuple(named.all), tuple(named.any), tuple(named.without))
    check_choice(choice, served)
    return choice


def _check_fields(fields: Sequence[str], catalog: Catalog) -> None:
    if unknown := next((name for name in fields if name not in catalog.attributes), None):
        known = ", ".join(sorted(catalog.attributes)) or "none"
        raise UnknownField(f"The catalog has no attribute {quoted(unknown)}, which fields names; it has {known}.")


def _indices(catalog: Catalog, item_ids: Sequence[str], field: str) -> list[int]:
    indices = catalog.indices_of(item_ids)
    if (missing := np.flatnonzero(indices < 0)).size:
        raise UnknownItem(item_ids[missing[0]], field)
    return [int(index) for index in indices]


def _identifiers(finished: FinishedList) -> int:
    return len({rank for _, _, rank in finished.items})


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)
