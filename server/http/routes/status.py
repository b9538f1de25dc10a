"""`/health`, `/ready`, `/version`, `/metrics`: what operators and their tools ask."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Response

from server.engine.supervisor import EngineStatus
from server.http.problems import documented
from server.http.strict_route import needs, strict_route
from server.schemas.status import StatusAnswer, VersionAnswer
from server.services import Services

_METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "All metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


def status_routes(services: Services) -> APIRouter:
    """The router of the server's own state."""
    # Probes, load balancers and Prometheus ask these, and need no key for it: they tell figures and names, and nothing of users or items.
    router = APIRouter(route_class=strict_route(services.gate))
    catalogs, supervisor, metrics = services.catalogs, services.engine.supervisor, services.metrics

    @router.get("/health", tags=["status"], summary="Whether the server is alive", responses=documented(503))
    @needs(None)
    async def health() -> StatusAnswer:
        """503 when the engine is dead, or the server no longer does what others change; one that still loads its model is alive."""
        catalogs.follower.check_following()
        if supervisor.status not in (EngineStatus.STARTING, EngineStatus.READY):
            raise supervisor.unavailable()
        return StatusAnswer(status="alive", engine=supervisor.status.value)

    @router.get("/ready", tags=["status"], summary="Whether the server takes requests", responses=documented(503))
    @needs(None)
    async def ready() -> StatusAnswer:
        """503 until the model is loaded, while the engine is gone or silent, no prompts or no lists are made, or what other servers have
        changed is not done here, and at the end.
        """
        services.check_ready()
        return StatusAnswer(status="ready", engine=supervisor.status.value)

    @router.get("/version", tags=["status"], summary="What runs here", responses=documented())
    @needs(None)
    async def show_version() -> VersionAnswer:
        precision, normalised = (None, None) if (ready := supervisor.ready) is None else (ready.precision, ready.normalised)
        return VersionAnswer(
            version=version("atspeed-server"),
            model=services.settings.model_name,
            engine=services.settings.engine,
            precision=None if precision is None else precision.dtype,
            exact=None if precision is None else precision.is_exact,
            normalised=normalised,
            catalog_version=catalogs.active.name,
        )

    @router.get(
        "/metrics",
        tags=["status"],
        summary="Metrics in Prometheus' text format",
        response_class=Response,
        responses=documented() | _METRICS,
    )
    @needs(None, operates=True)
    async def show_metrics() -> Response:
        return Response(metrics.exposition(), headers={"Content-Type": metrics.content_type})

    return router
