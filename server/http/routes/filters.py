"""`/v1/catalog/filters`: name what may be recommended, see and forget the names."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from drafting.trie.item_set import ItemSet
from server.catalogs.comparison import effect_of
from server.catalogs.filters import NamedFilter
from server.http.problems import documented
from server.http.strict_route import needs, strict_route
from server.http.wait import WaitQuery
from server.keys.key import Scope
from server.lists.lines import name_line
from server.schemas.catalogs import FilterAnswer, FilterDefinition, FiltersAnswer
from server.schemas.comparisons import FilterSample, ItemName
from server.services import Services

EMPTY_NOTE = "No item of the catalog passes, so lists that must pass it are empty."
MAX_SAMPLE = 1000

# A slash in a name would be one of the path: paths are decoded before they are routed.
FilterPath = Annotated[str, Path(min_length=1, max_length=128, pattern=r"^[^/]+$", description="The filter's name, without a slash.")]


def filter_routes(services: Services) -> APIRouter:
    """The router of named filters."""
    router = APIRouter(
        prefix="/v1/catalog/filters", tags=["catalog"], route_class=strict_route(services.gate, services.catalogs.follower.check_begun)
    )
    filters = services.filters

    @router.put("/{name}", summary="Name a filter", responses=documented(415, 429, 503, 507), response_model_exclude_none=True)
    @needs(Scope.CATALOG)
    async def put(name: FilterPath, body: FilterDefinition, wait: WaitQuery = None) -> FilterAnswer:
        """Over item ids or as an expression over the items' attributes; a name that is there already means the new thing from now on."""
        named, passing = await filters.put(name, body.expression or body.items or [])
        await services.announcer.wait_for(wait)
        return line(named, passing)

    @router.get("", summary="All named filters", responses=documented(), response_model_exclude_none=True)
    @needs(Scope.CATALOG)
    async def show_all() -> FiltersAnswer:
        sets = services.catalogs.active.filters
        shown = [(each, sets[each.name]) for each in filters.all()]
        # Their items are counted once, which takes a while where there are many.
        return FiltersAnswer(filters=await asyncio.to_thread(lambda: [line(*each) for each in shown]))

    @router.get("/{name}", summary="One named filter", responses=documented(404, 422), response_model_exclude_none=True)
    @needs(Scope.CATALOG)
    async def show(name: FilterPath) -> FilterAnswer:
        return line(filters.get(name), services.catalogs.active.filters[name])

    @router.get("/{name}/sample", summary="What a named filter leaves", responses=documented(404, 422), response_model_exclude_none=True)
    @needs(Scope.CATALOG)
    async def sample(
        name: FilterPath, limit: Annotated[int, Query(ge=0, le=MAX_SAMPLE, description="How many of the items, at most.")] = 20
    ) -> FilterSample:
        """How many items of the catalog that is served it lets through, and some of them."""
        filters.get(name)
        served = services.catalogs.active
        effect = await asyncio.to_thread(effect_of, served.filters[name], served.catalog, limit)
        return FilterSample(
            name=name,
            version=served.name,
            items=effect.items,
            identifiers=effect.identifiers,
            catalog_items=len(served.catalog),
            sample=[ItemName(**name_line(served.catalog, item)) for item in effect.sample.tolist()],
        )

    @router.delete(
        "/{name}", summary="Forget a named filter", status_code=204, response_class=Response, responses=documented(404, 422, 503, 507)
    )
    @needs(Scope.CATALOG)
    async def drop(name: FilterPath, wait: WaitQuery = None) -> None:
        """Requests that run with it are not disturbed."""
        await filters.drop(name)
        await services.announcer.wait_for(wait)

    def line(named: NamedFilter, passing: ItemSet) -> FilterAnswer:
        items = len(passing)
        return FilterAnswer(name=named.name, items=items, expression=named.expression, note=None if items else EMPTY_NOTE)

    return router
