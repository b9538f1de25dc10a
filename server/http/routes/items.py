"""`/v1/catalog/items`: see the items of the catalog, and add new ones."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Response

from drafting.beam.rule import LARGEST_JSON_INTEGER
from server.catalogs.new_items import NewItems
from server.http.problems import documented
from server.http.strict_route import StrictRoute
from server.lists.lines import catalog_line
from server.schemas.catalogs import AddedItem, CatalogItemsAnswer, ItemsAdded, NewItemsBody
from server.services import Services

MAX_ITEMS = 1000


def item_routes(services: Services) -> APIRouter:
    """The router of the catalog's items."""
    router = APIRouter(prefix="/v1/catalog/items", tags=["catalog"], route_class=StrictRoute)
    catalogs, drain = services.catalogs, services.drain
    new_items = NewItems(catalogs, services.engine, services.switch, services.settings)

    @router.get("", summary="Items of the catalog", responses=documented(422, answer=CatalogItemsAnswer))
    async def list_items(
        limit: Annotated[int, Query(ge=1, le=MAX_ITEMS, description="How many.")] = 100,
        offset: Annotated[int, Query(ge=0, le=LARGEST_JSON_INTEGER, description="After how many.")] = 0,
    ) -> Response:
        """In the catalog's order; past the end there are none."""
        served = catalogs.active
        items = [catalog_line(served.catalog, index) for index in range(offset, min(offset + limit, len(served.catalog)))]
        body = {"version": served.name, "offset": offset, "items": items}
        return Response(orjson.dumps(body), media_type="application/json")

    @router.post("", summary="Add items to the catalog", status_code=201, responses=documented(400, 409, 413, 415, 422, 503, 507))
    async def add(body: NewItemsBody) -> ItemsAdded:
        """All of them or none. They make a version of the catalog, which is served when the answer comes, so the next request can get them.

        An item brings its identifier, or the embedding from which the server's codebooks make one.
        """
        with drain.request():
            placed, activation = await new_items.add(body)
        items = [AddedItem(item_id=item.item_id, identifier=list(item.identifier), moved=item.moved) for item in placed]
        return ItemsAdded(version=activation.version, items=items, by=activation.by, at=activation.at)

    return router
