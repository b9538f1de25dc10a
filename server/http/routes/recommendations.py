"""`POST /v1/recommendations` and `POST /v1/recommendations:batch`."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request, Response

from server.http.batches import recommend_batch
from server.http.problems import ClientGone
from server.http.routes.documented import answer, problems
from server.lists.service import RecommendationService
from server.schemas.batches import BatchAnswer, BatchRequest
from server.schemas.recommendations import RecommendationAnswer, RecommendationRequest
from server.services import Services

Answer = TypeVar("Answer")


def recommendation_routes(services: Services) -> APIRouter:
    """The router of recommendations."""
    router = APIRouter(prefix="/v1", tags=["recommendations"])
    service = RecommendationService(services)

    # The answer is encoded here: checking what we have just made against its own model would take longer than making it.
    @router.post(
        "/recommendations",
        summary="Recommend items for a user",
        responses=answer(RecommendationAnswer) | problems(400, 404, 413, 415, 422, 429, 503, 504),
    )
    async def recommend(body: RecommendationRequest, request: Request) -> Response:
        """The `k` most likely next items of a history, as exact beam search over the catalog finds them, or a sample of `k`."""
        recommendation = await while_connected(request, service.recommend(body))
        return Response(orjson.dumps(recommendation), media_type="application/json")

    @router.post(
        "/recommendations:batch",
        summary="Recommend items for many users",
        responses=answer(BatchAnswer) | problems(400, 413, 415, 422),
    )
    async def recommend_many(body: BatchRequest, request: Request) -> Response:
        """Up to 256 lists at once. The answer is 200 also where entries fail; each tells its own status, in the order of the request."""
        results = await while_connected(request, recommend_batch(service, body.requests))
        return Response(orjson.dumps(results), media_type="application/json")

    return router


async def while_connected(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """Does the work of a request, and drops it when the client hangs up.

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
        # Somebody else may have cancelled it as well, and must not be overheard.
        if not gone or answering.uncancel():
            raise
        raise ClientGone from error
    finally:
        watching.cancel()
