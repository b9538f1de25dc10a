"""`/v1/control`: how replicas stand, and the state that they agree on as a file."""

from typing import Any

from fastapi import APIRouter, Request, Response

from server.control.base import Replica
from server.http.problems import documented
from server.http.strict_route import needs, strict_route
from server.http.upload import body_of
from server.keys.key import Scope
from server.schemas.control import ControlAnswer, ControlRestored, ReplicaAnswer
from server.services import Services

BACKUP_FORM = "application/octet-stream"
_FILE: dict[str, Any] = {BACKUP_FORM: {"schema": {"type": "string", "format": "binary"}}}
_BACKUP: dict[int | str, dict[str, Any]] = {200: {"description": "The backup.", "content": _FILE}}


def control_routes(services: Services) -> APIRouter:
    """The router of the control store."""
    router = APIRouter(prefix="/v1/control", tags=["control"], route_class=strict_route(services.gate))
    follower, overview = services.catalogs.follower, services.overview

    @router.get("", summary="How replicas stand", responses=documented())
    @needs(Scope.OPERATE)
    async def show() -> ControlAnswer:
        """What the one that answers has read of the control store, and all replicas that live."""
        replicas = await overview.replicas()
        return ControlAnswer(
            replica=follower.name,
            store="away" if follower.away_since is not None else "lost" if follower.lost else "ok",
            away_since=follower.away_since,
            generation=follower.read_position.generation,
            revision=follower.read_position.revision,
            replicas=[line(replica) for replica in replicas],
        )

    @router.get("/backup", summary="The state as a file", response_class=Response, responses=documented(503) | _BACKUP)
    @needs(Scope.OPERATE)
    async def save() -> Response:
        """Of the memory of the replica that answers, so also while the control store is away or has lost its state."""
        return Response(await overview.backup(), media_type=BACKUP_FORM)

    @router.put(
        "/backup",
        summary="Restore the state of a file",
        responses=documented(400, 413, 415, 503, 507),
        openapi_extra={"requestBody": {"required": True, "content": _FILE}},
    )
    @needs(Scope.OPERATE)
    async def restore(request: Request) -> ControlRestored:
        """In place of what the control store holds, or of nothing. All replicas become what the file says."""
        position = await overview.restore(await body_of(request))
        return ControlRestored(generation=position.generation, revision=position.revision)

    def line(replica: Replica) -> ReplicaAnswer:
        return ReplicaAnswer(
            name=replica.name,
            generation=replica.position.generation,
            revision=replica.position.revision,
            behind_seconds=round(overview.behind_seconds(replica.position), 3),
            ready=replica.ready,
            problem=replica.problem,
            started_at=replica.started_at,
            software=replica.software,
            version=replica.version,
        )

    return router
