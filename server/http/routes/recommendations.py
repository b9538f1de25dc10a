"""`POST /v1/recommendations`, `POST /v1/recommendations:explain` and `POST /v1/recommendations:batch`.

Invariant: every entry of a batch gets the list or the problem that it would have got alone, in the order of the request. Entries begin one
by one, with a turn of the event loop between two, so that a batch does not keep other clients waiting.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from server.http.problems import FORESEEN, ClientGone, Problem, documented, invalid, problem_of
from server.http.strict_route import key_of, needs, strict_route
from server.keys.key import Key, Scope
from server.lists.service import RecommendationService
from server.schemas.explanations import ExplainedAnswer, ExplainRequest
from server.schemas.recommendations import BatchAnswer, BatchRequest, RecommendationAnswer, RecommendationRequest
from server.services import Services

Answer = TypeVar("Answer")


def recommendation_routes(services: Services) -> APIRouter:
    """The router of recommendations."""
    router = APIRouter(prefix="/v1", tags=["recommendations"], route_class=strict_route(services.gate))
    service = RecommendationService(services)

    # The answer is encoded here: checking what we have just made against its own model would take longer than making it.
    @router.post(
        "/recommendations",
        summary="Recommend items for a user",
        responses=documented(404, 409, 415, 429, 500, 503, 504, answer=RecommendationAnswer),
    )
    @needs(Scope.RECOMMEND)
    async def recommend(body: RecommendationRequest, request: Request) -> Response:
        """The `k` most likely next items of a history, as exact beam search over the catalog finds them, or a sample of `k`."""
        recommendation = await while_connected(request, service.recommend(body, key_of(request)))
        return Response(orjson.dumps(recommendation), media_type="application/json")

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
        explained = await while_connected(request, service.explain(body, key_of(request)))
        return Response(orjson.dumps(explained), media_type="application/json")

    @router.post(
        "/recommendations:batch",
        summary="Recommend items for many users",
        responses=documented(415, answer=BatchAnswer),
    )
    @needs(Scope.RECOMMEND)
    async def recommend_many(body: BatchRequest, request: Request) -> Response:
        """Up to 256 lists at once. The answer is 200 also where entries fail; each tells its own status, in the order of the request."""
        key = key_of(request)
        if key is not None:
            # As a request it has been counted, as each of its lists not yet.
            await services.gate.charge(key, len(body.requests) - 1)
        results = await while_connected(request, all_entries(body, key))
        failed = sum(result["status"] != 200 for result in results)
        batch = {"results": results, "succeeded": len(results) - failed, "failed": failed}
        return Response(orjson.dumps(batch), media_type="application/json")

    async def all_entries(body: BatchRequest, key: Key | None) -> list[dict[str, Any]]:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for entry in body.requests:
                tasks.append(group.create_task(one_entry(entry, key)))
                await asyncio.sleep(0)
        return [task.result() for task in tasks]

    async def one_entry(entry: Any, key: Key | None) -> dict[str, Any]:
        try:
            body = RecommendationRequest.model_validate(entry)
            return {"status": 200, "recommendation": await service.recommend(body, key)}
        except ValidationError as error:
            return _failed(problem_of(invalid(error, "entry")))
        except FORESEEN as error:
            return _failed(problem_of(error))

    return router


def _failed(told: Problem) -> dict[str, Any]:
    retry = {} if told.retry_after_seconds is None else {"retry_after_seconds": told.retry_after_seconds}
    return {"status": told.status, "problem": told.members() | retry}


async def while_connected(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """Do the work of a request, and drop it when the client hangs up.

    Raises:
        ClientGone: the client hung up first.
    """
    answering = asyncio.current_task()
    assert answering is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        # The body has been read, so all that can still come is the end of the connection.
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        answering.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError as error:
        # The task may have been cancelled for another reason as well, which must not be lost.
        if not gone or answering.uncancel():
            raise
        raise ClientGone from error
    finally:
        watching.cancel()
