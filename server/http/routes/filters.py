"""`/v1/catalog/filters`: name what may be recommended, see and forget the names."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from server.catalogs.filters import NamedFilter
from server.http.problems import documented
from server.http.strict_route import StrictRoute
from server.schemas.catalogs import FilterAnswer, FilterDefinition, FiltersAnswer
from server.services import Services

EMPTY_NOTE = "No item of the catalog passes, so lists that must pass it are empty."
FilterPath = Annotated[str, Path(min_length=1, max_length=128, description="The filter's name.")]


def filter_routes(services: Services) -> APIRouter:
    """The router of named filters."""
    router = APIRouter(prefix="/v1/catalog/filters", tags=["catalog"], route_class=StrictRoute)
    filters = services.filters

    @router.put("/{name}", summary="Name a filter", responses=documented(415, 429, 503), response_model_exclude_none=True)
    async def put(name: FilterPath, body: FilterDefinition) -> FilterAnswer:
        """Over item ids or as an expression over the items' attributes; a name that is there already means the new thing from now on."""
        return line(await filters.put(name, body.expression or body.items or []))

    @router.get("", summary="All named filters", responses=documented(), response_model_exclude_none=True)
    async def show_all() -> FiltersAnswer:
        return FiltersAnswer(filters=[line(each) for each in filters.all()])

    @router.get("/{name}", summary="One named filter", responses=documented(404, 422), response_model_exclude_none=True)
    async def show(name: FilterPath) -> FilterAnswer:
        return line(filters.get(name))

    @router.delete(
        "/{name}", summary="Forget a named filter", status_code=204, response_class=Response, responses=documented(404, 422, 503)
    )
    async def drop(name: FilterPath) -> None:
        """Requests that run with it are not disturbed."""
        await filters.drop(name)

    def line(named: NamedFilter) -> FilterAnswer:
        items = len(services.catalogs.active.filters[named.name])
        return FilterAnswer(name=named.name, items=items, expression=named.expression, note=None if items else EMPTY_NOTE)

    return router
