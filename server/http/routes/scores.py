"""`POST /v1/scores`."""

from fastapi import APIRouter, Request, Response

from server.http.answering import answered
from server.http.problems import documented
from server.http.strict_route import charge, key_of, needs, strict_route
from server.keys.key import Scope
from server.lists.scores import ScoreService
from server.schemas.scores import ScoreAnswer, ScoreRequest
from server.services import Services

# What so many items cost is about what a list costs.
ITEMS_PER_LIST = 100


def score_routes(services: Services) -> APIRouter:
    """The router of scores."""
    router = APIRouter(prefix="/v1", tags=["recommendations"], route_class=strict_route(services.gate))
    service = ScoreService(services)

    @router.post(
        "/scores",
        summary="Score items for a user",
        responses=documented(404, 409, 415, 429, 500, 503, 504, answer=ScoreAnswer),
    )
    @needs(Scope.RECOMMEND, charges=True)
    async def score(body: ScoreRequest, request: Request) -> Response:
        """The log-probability that the model gives each of up to 10,000 items as the next one of a history, and their ranks."""
        if (key := key_of(request)) is not None:
            with services.metrics.keys.sized(key.name):
                key.check_scored(len(body.items))
        await charge(services.gate, request, -(-len(body.items) // ITEMS_PER_LIST))
        return await answered(request, service.score(body))

    return router
