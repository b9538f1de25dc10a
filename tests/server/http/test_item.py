"""One item of the catalog by its id, which may be any text."""

from typing import Any
from urllib.parse import quote

import pytest

from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
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
async def test_an_item_that_is_not_there_is_told(name: str):
    response = await Bench().client.get(f"/v1/catalog/items/{name}")
    assert_problem(response, 404, f"The catalog has no item '{name}'.")
    assert response.json()["type"] == "urn:atspeed:unknown-item"
