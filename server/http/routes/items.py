"""`/v1/catalog`, `/v1/catalog/items` and `/v1/catalog/like`: see the catalog, its items and which of them are alike, and add new ones."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, Response
from pydantic import StringConstraints

from drafting.beam.rule import LARGEST_JSON_INTEGER
from drafting.catalog.attributes import TITLE
from drafting.errors import quoted
from server.catalogs.new_items import NewItems
from server.catalogs.search import ItemSearch
from server.catalogs.served import ServedCatalog
from server.errors import ItemNotFound
from server.http.problems import documented
from server.http.strict_route import needs, strict_route
from server.http.wait import WaitQuery
from server.keys.key import Scope
from server.lists.lines import catalog_line
from server.schemas.catalogs import AddedItem, CatalogAnswer, CatalogItemAnswer, CatalogItemsAnswer, ItemsAdded, NewItemsBody
from server.schemas.comparisons import AlikeAnswer
from server.services import Services

MAX_ITEMS = 1000
Text = Annotated[str, StringConstraints(min_length=1, max_length=128)]
MAX_ALIKE = 100
ItemPath = Annotated[str, Path(min_length=1, max_length=512, description="The item's id, percent-encoded (a slash as `%2F`).")]


def item_routes(services: Services) -> APIRouter:
    """The router of the catalog's items."""
    router = APIRouter(
        prefix="/v1/catalog", tags=["catalog"], route_class=strict_route(services.gate, services.catalogs.follower.check_begun)
    )
    catalogs, drain = services.catalogs, services.drain
    search = ItemSearch()
    new_items = NewItems(catalogs, services.engine.supervisor, services.switch, services.settings)

    @router.get("", summary="The catalog that is recommended from", responses=documented(503))
    @needs(Scope.RECOMMEND)
    async def show_catalog() -> CatalogAnswer:
        served = catalogs.active
        return CatalogAnswer(
            version=served.name,
            items=len(served.catalog),
            identifiers=served.catalog.identifiers,
            identifier_length=served.catalog.identifier_length,
            tokens=len(served.catalog.tokens),
        )

    @router.get(
        "/items", summary="Items of the catalog, all or those of a search", responses=documented(422, 429, answer=CatalogItemsAnswer)
    )
    @needs(Scope.RECOMMEND)
    async def list_items(
        q: Annotated[
            Text | None, Query(description="Only items whose id begins with this or whose title holds it, without regard to case.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_ITEMS, description="How many.")] = 100,
        offset: Annotated[int, Query(ge=0, le=LARGEST_JSON_INTEGER, description="After how many.")] = 0,
    ) -> Response:
        """In the catalog's order; past the end there are none.

        Of a search, ids come first, then titles that begin with the text, then those with a word that does.
        """
        served = catalogs.active
        found = range(len(served.catalog)) if q is None else await search.find(served.catalog, q)
        items = [catalog_line(served.catalog, int(index)) for index in found[offset : offset + limit]]
        body = {"version": served.name, "offset": offset, "items": items} | ({} if q is None else {"found": len(found)})
        return Response(orjson.dumps(body), media_type="application/json")

    # Any text is an id, a slash in it too.
    @router.get("/items/{item_id:path}", summary="One item of the catalog", responses=documented(404, 422, answer=CatalogItemAnswer))
    @needs(Scope.RECOMMEND)
    async def show_item(item_id: ItemPath) -> Response:
        """Its identifier, title and attributes."""
        served, index = find(item_id)
        attributes = {name: value for name, value in served.catalog.known_attributes(index).items() if name != TITLE}
        body = {"version": served.name, **catalog_line(served.catalog, index), "attributes": attributes}
        return Response(orjson.dumps(body), media_type="application/json")

    @router.get("/like/{item_id:path}", summary="Items like one", responses=documented(404, 422, 429, answer=AlikeAnswer))
    @needs(Scope.RECOMMEND)
    async def show_like(
        item_id: ItemPath, limit: Annotated[int, Query(ge=0, le=MAX_ALIKE, description="How many items of each kind are told.")] = 20
    ) -> Response:
        """The items that share the whole identifier of one, then those that share all but its last token, and so on: its neighbours in the
        trie.
        """
        served, index = find(item_id)
        found = await search.alike(served.catalog, index, limit)
        line = catalog_line(served.catalog, index)
        kinds = [
            {
                "shared": line["identifier"][: each.depth],
                "count": each.count,
                "items": [catalog_line(served.catalog, item) for item in each.items.tolist()],
            }
            for each in found
        ]
        return Response(orjson.dumps({"version": served.name, **line, "alike": kinds}), media_type="application/json")

    def find(item_id: str) -> tuple[ServedCatalog, int]:
        served = catalogs.active
        index = served.catalog.index_of(item_id)
        if index is None:
            raise ItemNotFound(f"The catalog has no item {quoted(item_id)}.")
        return served, index

    @router.post("/items", summary="Add items to the catalog", status_code=201, responses=documented(400, 409, 413, 415, 422, 503, 507))
    @needs(Scope.CATALOG)
    async def add(body: NewItemsBody, wait: WaitQuery = None) -> ItemsAdded:
        """All of them or none. They make a version of the catalog, which is served when the answer comes, so the next request can get them.

        An item brings its identifier, or the embedding from which the server's codebooks make one.
        """
        with drain.request():
            placed, activation = await new_items.add(body)
            await services.announcer.wait_for(wait)
        items = [AddedItem(item_id=item.item_id, identifier=list(item.identifier), moved=item.moved) for item in placed]
        return ItemsAdded(version=activation.version, items=items, by=activation.by, at=activation.at)

    return router
