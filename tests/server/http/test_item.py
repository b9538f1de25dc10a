"""One item of the catalog by its id, which may be any text, and the items like it."""

import asyncio
import threading
from typing import Any
from urllib.parse import quote

import pytest

from drafting.catalog.alike import Alike
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from server.catalogs import search
from server.catalogs.search import MOST_SEARCHES, ItemSearch
from server.schemas.comparisons import AlikeAnswer
from server.try_again import SearchesBusy
from tests.server.http.test_app import CATALOG, Bench
from tests.server.server_process import assert_problem

NAMES = ["item-1", "a/b", "a//b/", "ä ☃", "a?b#c", "a%2Fb", "x" * 512]


def named_catalog() -> Catalog:
    items = {name: CATALOG.identifier(place) for place, name in enumerate(NAMES)}
    return catalog_of(items, titles={"a/b": "Slashed"}, attributes={"year": [1990 if name == "a/b" else None for name in NAMES]})


@pytest.mark.parametrize("name", NAMES)
async def test_an_item_is_found_by_any_id(name: str, monkeypatch: pytest.MonkeyPatch):
    bench, catalog = Bench(), named_catalog()
    monkeypatch.setattr(bench.services.catalogs.active, "catalog", catalog)
    response = await bench.client.get(f"/v1/catalog/items/{quote(name, safe='')}")
    assert response.status_code == 200, response.text
    expected: dict[str, Any] = {"version": bench.services.catalogs.active.name, "item_id": name}
    expected |= {"identifier": list(catalog.identifier(NAMES.index(name))), "attributes": {}}
    assert response.json() == (expected | {"title": "Slashed", "attributes": {"year": 1990}} if name == "a/b" else expected)


@pytest.mark.parametrize("name", ["item-9999", "b", "ITEM-1"])
@pytest.mark.parametrize("route", ["items", "like"])
async def test_an_item_that_is_not_there_is_told(name: str, route: str):
    response = await Bench().client.get(f"/v1/catalog/{route}/{name}")
    assert_problem(response, 404, f"The catalog has no item '{name}'.")
    assert response.json()["type"] == "urn:atspeed:unknown-item"


async def test_items_are_searched_by_title_and_id(monkeypatch: pytest.MonkeyPatch):
    bench, served = Bench(), named_catalog()
    monkeypatch.setattr(bench.services.catalogs.active, "catalog", served)
    answer = (await bench.client.get("/v1/catalog/items", params={"q": "SLASH"})).json()
    expected = {"item_id": "a/b", "identifier": list(served.identifier(1)), "title": "Slashed"}
    assert answer == {"version": bench.services.catalogs.active.name, "offset": 0, "items": [expected], "found": 1}
    found = (await bench.client.get("/v1/catalog/items", params={"q": "A", "limit": 2, "offset": 1})).json()
    # A title that holds it comes behind ids that begin with it.
    assert (found["found"], [item["item_id"] for item in found["items"]]) == (4, ["a//b/", "a?b#c"])
    assert (await bench.client.get("/v1/catalog/items?q=nothing")).json()["items"] == []
    assert "found" not in (await bench.client.get("/v1/catalog/items")).json()
    assert_problem(await bench.client.get("/v1/catalog/items?q="), 422, "q must have at least 1 character.")
    assert_problem(await bench.client.get(f"/v1/catalog/items?q={'a' * 129}"), 422, "q must have at most 128 characters.")


async def test_a_crowd_of_searches_is_told_to_come_again():
    bench = Bench()
    answers = await asyncio.gather(*(bench.client.get("/v1/catalog/items?q=title") for _ in range(MOST_SEARCHES + 20)))
    busy = [answer for answer in answers if answer.status_code != 200]
    assert busy
    assert all((answer.status_code, answer.headers["retry-after"]) == (429, "1") for answer in busy)
    assert (await bench.client.get("/v1/catalog/items?q=Title 1")).json()["found"] == 11


async def test_items_like_one_take_the_places_of_searches(monkeypatch: pytest.MonkeyPatch):
    held, searches = threading.Event(), ItemSearch()

    def wait(*_: object) -> list[Alike]:
        held.wait()
        return []

    monkeypatch.setattr(search, "alike", wait)
    asked = [asyncio.create_task(searches.alike(CATALOG, 0, 1)) for _ in range(MOST_SEARCHES)]
    try:
        # Each takes its place before it waits.
        await asyncio.sleep(0)
        with pytest.raises(SearchesBusy):
            await searches.find(CATALOG, "title")
        with pytest.raises(SearchesBusy):
            await searches.alike(CATALOG, 0, 1)
    finally:
        held.set()
    assert await asyncio.gather(*asked) == [[]] * MOST_SEARCHES
    assert len(await searches.find(CATALOG, "Title 1")) == 11


async def test_items_are_alike_by_what_they_share(monkeypatch: pytest.MonkeyPatch):
    identifiers = {"a": "xyz", "b": "xyz", "c": "xyx", "d": "xxx", "e": "zyz", "a/b": "xyx", "f": "xxx"}
    bench, catalog = Bench(), catalog_of({name: list(tokens) for name, tokens in identifiers.items()}, titles={"c": "C"})
    monkeypatch.setattr(bench.services.catalogs.active, "catalog", catalog)

    def line(name: str) -> dict[str, Any]:
        return {"item_id": name, "identifier": list(identifiers[name])} | ({"title": "C"} if name == "c" else {})

    answer = (await bench.client.get("/v1/catalog/like/a", params={"limit": 1})).json()
    assert answer == line("a") | {
        "version": bench.services.catalogs.active.name,
        "alike": [
            {"shared": ["x", "y", "z"], "count": 1, "items": [line("b")]},
            {"shared": ["x", "y"], "count": 2, "items": [line("c")]},
            {"shared": ["x"], "count": 2, "items": [line("d")]},
        ],
    }
    assert AlikeAnswer.model_validate(answer, extra="forbid")
    slashed = (await bench.client.get("/v1/catalog/like/a%2Fb")).json()
    assert [[item["item_id"] for item in kind["items"]] for kind in slashed["alike"]] == [["c"], ["a", "b"], ["d", "f"]]
    nothing = (await bench.client.get("/v1/catalog/like/a", params={"limit": 0})).json()
    assert [(kind["count"], kind["items"]) for kind in nothing["alike"]] == [(1, []), (2, []), (2, [])]
    assert_problem(await bench.client.get("/v1/catalog/like/a?limit=101"), 422, "limit must be less than or equal to 100, got 101.")
