"""`POST /v1/recommendations`, `POST /v1/recommendations:explain` and `POST /v1/recommendations:batch`.

Invariant: every entry of a batch gets the list or the problem that it would have got alone, in the order of the request. Entries begin one
by one, with a turn of the event loop between two, so that a batch does not keep other clients waiting. A list is counted by its outcome
wherever it was asked for, as a batch is answered with 200 whatever becomes of its entries.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from server.http.answering import answered
from server.http.problems import CLIENT_CLOSED_REQUEST, FORESEEN, Problem, documented, invalid, problem_of
from server.http.strict_route import charge, key_of, needs, strict_route
from server.keys.key import Key, Scope
from server.lists.service import RecommendationService
from server.metrics.counter import LoopCounter
from server.schemas.batches import BatchAnswer, BatchRequest
from server.schemas.explanations import ExplainedAnswer, ExplainRequest
from server.schemas.recommendations import RecommendationAnswer, RecommendationRequest
from server.services import Services


def recommendation_routes(services: Services) -> APIRouter:
    """The router of recommendations."""
    router = APIRouter(prefix="/v1", tags=["recommendations"], route_class=strict_route(services.gate))
    service = RecommendationService(services)
    lists, drain = services.metrics.health.lists, services.drain

    async def recommended(body: RecommendationRequest, key: Key | None) -> dict[str, Any]:
        with _Outcomes(lists).counted(), drain.request():
            return await service.recommend(body, key)

    async def explained(body: ExplainRequest, key: Key | None) -> dict[str, Any]:
        with _Outcomes(lists).counted(), drain.request():
            return await service.explain(body, key)

    @router.post(
        "/recommendations",
        summary="Recommend items for a user",
        responses=documented(404, 409, 415, 429, 500, 503, 504, answer=RecommendationAnswer),
    )
    @needs(Scope.RECOMMEND)
    async def recommend(body: RecommendationRequest, request: Request) -> Response:
        """The `k` most likely next items of a history, as exact beam search over the catalog finds them, or a sample of `k`."""
        return await answered(request, recommended(body, key_of(request)))

    @router.post(
        "/recommendations:explain",
        summary="Recommend items for a user, and tell how the search found them",
        responses=documented(404, 409, 415, 429, 500, 503, 504, answer=ExplainedAnswer),
    )
    @needs(Scope.RECOMMEND)
    async def explain(body: ExplainRequest, request: Request) -> Response:
        """The list that `POST /v1/recommendations` answers, with the prefixes that the search considered, level by level: the beam, what
        was drafted and accepted, and the best of what was cut. A server explains two lists at a time.
        """
        return await answered(request, explained(body, key_of(request)))

    @router.post(
        "/recommendations:batch",
        summary="Recommend items for many users",
        responses=documented(415, answer=BatchAnswer),
    )
    @needs(Scope.RECOMMEND, charges=True)
    async def recommend_many(body: BatchRequest, request: Request) -> Response:
        """Up to 256 lists at once. The answer is 200 also where entries fail; each tells its own status, in the order of the request."""
        # As a whole: of one that was begun no entry is refused because the server is told to end.
        with drain.request():
            await charge(services.gate, request, len(body.requests))
            return await answered(request, all_entries(body, key_of(request)))

    async def all_entries(body: BatchRequest, key: Key | None) -> dict[str, Any]:
        outcomes = _Outcomes(lists)
        async with asyncio.TaskGroup() as group:
            tasks = []
            for entry in body.requests:
                tasks.append(group.create_task(one_entry(entry, key, outcomes)))
                await asyncio.sleep(0)
        results = [task.result() for task in tasks]
        failed = sum(result["status"] != 200 for result in results)
        return {"results": results, "succeeded": len(results) - failed, "failed": failed}

    async def one_entry(entry: Any, key: Key | None, outcomes: "_Outcomes") -> dict[str, Any]:
        try:
            body = RecommendationRequest.model_validate(entry)
            with outcomes.counted():
                return {"status": 200, "recommendation": await service.recommend(body, key)}
        except ValidationError as error:
            return _failed(problem_of(invalid(error, "entry")))
        except FORESEEN as error:
            return _failed(problem_of(error))

    return router


class _Outcomes:
    """What becomes of the lists of one HTTP request."""

    def __init__(self, lists: LoopCounter) -> None:
        self._lists = lists
        # True once a list has met a fault of the server: the request is answered with 500, and its other lists are cancelled.
        self._is_broken = False

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a list by the status of its answer."""
        status: int | None = None
        try:
            yield
            status = 200
        except FORESEEN as error:
            status = problem_of(error).status
            raise
        except asyncio.CancelledError:
            status = 500 if self._is_broken else CLIENT_CLOSED_REQUEST
            raise
        finally:
            self._is_broken |= status is None
            self._lists.inc(1, str(int(status or 500)))


def _failed(told: Problem) -> dict[str, Any]:
    retry = {} if told.retry_after_seconds is None else {"retry_after_seconds": told.retry_after_seconds}
    return {"status": told.status, "problem": told.members() | retry}
