"""`/v1/catalogs`: bring versions of the catalog, serve one, go back to the one before."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import ValidationError

from drafting.array_types import IntArray
from drafting.catalog.catalog import Catalog
from server.catalogs.build import Built
from server.catalogs.comparison import VersionComparison
from server.catalogs.uploads import CatalogUploads
from server.control.records import Activation
from server.http.problems import documented, invalid
from server.http.strict_route import needs, strict_route
from server.http.upload import body_of, parsed, pieces_of
from server.http.wait import WaitQuery
from server.keys.key import Scope
from server.lists.lines import name_line
from server.schemas.catalogs import (
    UPLOAD_FORMS,
    ActivationAnswer,
    ActivationBody,
    CatalogPath,
    CatalogsAnswer,
    LeftAnswer,
    RollbackBody,
    VersionBuilt,
)
from server.schemas.comparisons import ItemName, SomeItems, VersionDifference
from server.services import Services

VERSION = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
MAX_TOLD = 1000
VersionPath = Annotated[str, Path(pattern=VERSION, description="Letters, digits, dots, dashes, underscores.")]
BaseQuery = Annotated[str | None, Query(pattern=VERSION, description="The version to compare with; by default the one that is served.")]

# The route reads its body itself, piece by piece.
_UPLOADS = {
    form: {"schema": {"type": "string", "format": "binary", "description": f"The bytes of a `{suffix}` catalog."}}
    for form, suffix in UPLOAD_FORMS.items()
}
_BODY = {"required": True, "content": {"application/json": {"schema": CatalogPath.model_json_schema()}} | _UPLOADS}


def catalog_routes(services: Services) -> APIRouter:
    """The router of catalog versions."""
    router = APIRouter(
        prefix="/v1/catalogs", tags=["catalog"], route_class=strict_route(services.gate, services.catalogs.follower.check_begun)
    )
    catalogs, switch, drain = services.catalogs, services.switch, services.drain
    comparison = VersionComparison(catalogs)
    uploads = CatalogUploads(services.settings, catalogs)

    @router.put(
        "/{version}",
        summary="Bring a version of the catalog",
        status_code=201,
        responses=documented(400, 409, 413, 415, 422, 429, 503, 507),
        openapi_extra={"requestBody": _BODY},
    )
    @needs(Scope.CATALOG)
    async def put(version: VersionPath, request: Request, wait: WaitQuery = None) -> VersionBuilt:
        """As JSON that names a file in the server's directory of catalogs, or as an upload of JSONL, parquet, an index,
        MiniOneRec's item info or an artefact.

        It is checked against the model and made ready; nothing else changes until it is activated.
        """
        built = await drain.long(lambda: bring(version, request))
        await services.announcer.wait_for(wait)
        return VersionBuilt.model_validate({"version": version, **msgspec.structs.asdict(built)})

    async def bring(version: str, request: Request) -> Built:
        content_type = request.headers.get("content-type", "")
        if content_type.partition(";")[0].strip().lower() == "application/json":
            return await uploads.from_path(version, _path(await body_of(request)))
        length = request.headers.get("content-length", "")
        return await uploads.from_upload(version, content_type, pieces_of(request), int(length) if length.isdecimal() else None)

    @router.get("", summary="All versions, and the history of activations", responses=documented())
    @needs(Scope.CATALOG)
    async def show() -> CatalogsAnswer:
        return CatalogsAnswer(
            active=catalogs.active.name,
            versions=catalogs.versions(),
            history=[_line(entry) for entry in catalogs.history],
            left=[LeftAnswer(version=each.version, at=each.at, reason=each.reason) for each in catalogs.left],
        )

    @router.get(
        "/{version}/difference",
        summary="What a version changes",
        responses=documented(404, 422, 503),
        response_model_exclude_none=True,
    )
    @needs(Scope.CATALOG)
    async def differ(
        version: VersionPath,
        base: BaseQuery = None,
        limit: Annotated[int, Query(ge=0, le=MAX_TOLD, description="How many items of each kind are told.")] = 100,
    ) -> VersionDifference:
        """Which items it adds, removes and changes in comparison with another one. Neither needs to be served."""
        with drain.request():
            base = base or catalogs.active.name
            compared = await comparison.compare(base, version)

        def some(catalog: Catalog, items: IntArray) -> SomeItems:
            return SomeItems(count=len(items), items=[ItemName(**name_line(catalog, item)) for item in items[:limit].tolist()])

        found = compared.difference
        return VersionDifference(
            version=version,
            base=base,
            items=len(compared.new),
            base_items=len(compared.old),
            added=some(compared.new, found.added),
            removed=some(compared.old, found.removed),
            identifier_changed=some(compared.new, found.moved),
            attributes_changed=some(compared.new, found.described),
        )

    @router.post("/{version}/activate", summary="Serve a version", responses=documented(400, 404, 413, 415, 422, 503, 507))
    @needs(Scope.CATALOG)
    async def activate(version: VersionPath, body: ActivationBody, wait: WaitQuery = None) -> ActivationAnswer:
        """From now on requests start with it; those that run end with the version that they started with.

        The engine gives a few lists with it first, which are checked.
        """
        with drain.request():
            async with catalogs.changing:
                activation = await switch.serve(version, body.by)
            await services.announcer.wait_for(wait)
            return _line(activation)

    @router.post("/rollback", summary="Serve the version before this one again", responses=documented(400, 409, 413, 415, 422, 503, 507))
    @needs(Scope.CATALOG)
    async def roll_back(body: RollbackBody | None = None, wait: WaitQuery = None) -> ActivationAnswer:
        """Twice in a row comes back to where it began: name the version that is to be left. It needs no engine: the next one loads what is
        served.

        The body may be left out.
        """
        body = body or RollbackBody()
        with drain.request():
            async with catalogs.changing:
                activation = await switch.serve(None, body.by, served=body.served, without_engine=True)
            await services.announcer.wait_for(wait)
            return _line(activation)

    @router.delete(
        "/{version}", summary="Forget a version", status_code=204, response_class=Response, responses=documented(404, 409, 422, 503, 507)
    )
    @needs(Scope.CATALOG)
    async def remove(version: VersionPath, wait: WaitQuery = None) -> None:
        """Its file is deleted. A version that any replica serves can't be forgotten (409), nor one that a replica served which was killed
        shortly before: activate another one with `?wait=all` first, and try again on 409."""
        async with catalogs.changing:
            await catalogs.remove(version)
        await services.announcer.wait_for(wait)

    return router


def _line(entry: Activation) -> ActivationAnswer:
    return ActivationAnswer(version=entry.version, by=entry.by, at=entry.at)


def _path(body: bytes) -> str:
    try:
        return CatalogPath.model_validate(parsed(body)).path
    except ValidationError as error:
        raise invalid(error, "body") from error
