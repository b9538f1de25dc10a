"""Named filters on a real server: the k best of what they let through, and one clear sentence for everything that can't be."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from drafting.catalog.catalog import Catalog
from server.catalogs import filters
from server.control.records import Changes
from server.http.routes.filters import EMPTY_NOTE
from server.schemas.comparisons import FilterSample
from tests.server.http.test_app import Bench
from tests.server.server_process import ServerProcess, alike, assert_problem

HISTORY = ["item-3", "item-14"]
NAMES = {f"item-{i}" for i in range(200)}
EVEN = {f"item-{i}" for i in range(0, 200, 2)}
LOW = {f"item-{i}" for i in range(60)}


@pytest.fixture(scope="module")
def shop(running_server: ServerProcess) -> Iterator[ServerProcess]:
    """The shared server, with filters that it is rid of afterwards."""
    titles = ", ".join(f'"Title {i}"' for i in range(60))
    filters: dict[str, dict[str, Any]] = {
        "even": {"items": sorted(EVEN)},
        "low": {"expression": f"title in [{titles}]"},
        "five": {"items": [f"item-{i}" for i in (3, 50, 77, 120, 199)]},
    }
    for name, body in filters.items():
        assert running_server.client.put(f"/v1/catalog/filters/{name}", json=body).status_code == 200
    yield running_server
    for name in filters:
        assert running_server.client.delete(f"/v1/catalog/filters/{name}").status_code == 204


def listed(server: ServerProcess, **body: Any) -> list[dict[str, Any]]:
    response = server.recommend(history=HISTORY, **body)
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


@pytest.mark.parametrize(
    ("choice", "eligible"),
    [
        ("even", EVEN),
        ({"all": ["even", "low"]}, EVEN & LOW),
        ({"any": ["even", "low"]}, EVEN | LOW),
        ({"not": ["even"]}, NAMES - EVEN),
        ({"all": ["low"], "not": ["even"]}, LOW - EVEN),
        ({"all": ["low"], "any": ["even", "five"]}, LOW & (EVEN | {"item-3", "item-50"})),
    ],
)
def test_a_filter_is_an_exclusion_of_all_the_rest(shop: ServerProcess, choice: Any, eligible: set[str]):
    for extra in ({}, {"exclude": sorted(eligible)[::3]}):
        rest = sorted(NAMES - eligible | set(extra.get("exclude", ())))
        filtered = listed(shop, k=12, filter=choice, **extra)
        assert filtered == alike(listed(shop, k=12, exclude=rest))
        assert {line["item_id"] for line in filtered} <= eligible


def test_a_filter_that_leaves_five_items_returns_them_and_says_so(shop: ServerProcess):
    answer = shop.recommend(history=HISTORY, k=20, filter="five").json()
    assert {line["item_id"] for line in answer["items"]} == {f"item-{i}" for i in (3, 50, 77, 120, 199)}
    assert answer["note"].endswith("identifiers of the catalog were eligible, fewer than the 20 asked for.")


def test_a_filter_tells_what_it_leaves(shop: ServerProcess, catalog: Catalog):
    answer = shop.client.get("/v1/catalog/filters/even/sample", params={"limit": 5}).json()
    assert FilterSample.model_validate(answer, extra="forbid")
    identifiers = {catalog.identifier(number) for number in range(0, 200, 2)}
    assert answer | {"sample": []} == {
        "name": "even",
        "version": catalog.version,
        "items": 100,
        "identifiers": len(identifiers),
        "catalog_items": 200,
        "sample": [],
    }
    assert answer["sample"] == [{"item_id": f"item-{number}", "title": f"Title {number}"} for number in (0, 48, 98, 148, 198)]
    everything = shop.client.get("/v1/catalog/filters/five/sample").json()["sample"]
    assert [line["item_id"] for line in everything] == [f"item-{i}" for i in (3, 50, 77, 120, 199)]
    assert shop.client.get("/v1/catalog/filters/five/sample", params={"limit": 0}).json()["sample"] == []
    assert_problem(shop.client.get("/v1/catalog/filters/gone/sample"), 404, "There is no filter 'gone'.")


def test_filters_can_be_seen_changed_and_forgotten(shop: ServerProcess):
    url = "/v1/catalog/filters/now"
    assert shop.client.put(url, json={"items": ["item-1"]}).json() == {"name": "now", "items": 1}
    assert {line["item_id"] for line in listed(shop, filter="now")} == {"item-1"}
    changed = {"name": "now", "items": 1, "expression": 'title = "Title 2"'}
    assert shop.client.put(url, json={"expression": 'title = "Title 2"'}).json() == changed
    assert {line["item_id"] for line in listed(shop, filter="now")} == {"item-2"}
    assert shop.client.get(url).json() == changed
    assert [each["name"] for each in shop.client.get("/v1/catalog/filters").json()["filters"]] == ["even", "five", "low", "now"]
    none = {"name": "now", "items": 0, "expression": 'title = "title 2"', "note": EMPTY_NOTE}
    assert shop.client.put(url, json={"expression": 'title = "title 2"'}).json() == none
    assert shop.client.delete(url).status_code == 204
    assert_problem(shop.client.get(url), 404, "There is no filter 'now'.")
    assert_problem(shop.client.delete(url), 404, "There is no filter 'now'.")
    assert_problem(shop.recommend(history=HISTORY, filter="now"), 422, "There is no filter 'now', which the request names.")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"expression": "title >"}, "The expression ends at character 7, where more is expected."),
        ({"expression": "title & 3"}, "The expression makes no sense at character 7: '& 3'."),
        ({"expression": "title < 007"}, "The expression makes no sense at character 9: '007'."),
        ({"expression": "title < ٣"}, "The expression makes no sense at character 9: '٣'."),
        ({"expression": 'title = "\\q"'}, "The expression makes no sense at character 9: '\"\\\\q\"'."),
        ({"expression": 'title = "a\nb"'}, "The expression makes no sense at character 9: '\"a\\nb\"'."),
        ({"expression": f"title < {'9' * 4000}"}, "The value at character 9 holds an integer of more than 64 bits."),
        ({"expression": "not " * 1000 + "title"}, "At character 129 the expression is nested more than 32 levels deep."),
        ({"expression": "(" * 2000 + "title" + ")" * 2000}, "At character 33 the expression is nested more than 32 levels deep."),
        (
            {"expression": " and ".join(["title"] * 400)},
            "The expression has more than 50 comparisons (character 501), which are the most; many values of one attribute fit into a list"
            ', as in brand in ["x", "y"].',
        ),
        ({"expression": f"title in [{'1,' * 2000}1]"}, "The list has more than 1,000 values at character 2011, which are the most."),
        ({"expression": "x and size = 3"}, "There is no attribute 'x' (character 1); the catalog has title."),
        (
            {"expression": "not title = 3"},
            "At character 5, title is compared with numbers, but its values are texts; texts are written in quotes, numbers and booleans "
            "without.",
        ),
        ({"items": ["item-1", "nothing"]}, "The catalog has no item 'nothing', which the filter names."),
        ({}, "Give either items or an expression."),
        ({"items": [], "expression": "title"}, "Give either items or an expression."),
    ],
)
def test_bad_filters_change_nothing(shop: ServerProcess, body: dict[str, Any], sentence: str):
    before = shop.client.get("/v1/catalog/filters").json()
    assert_problem(shop.client.put("/v1/catalog/filters/even", json=body), 422, sentence)
    assert shop.client.get("/v1/catalog/filters").json() == before
    assert {line["item_id"] for line in listed(shop, filter="even")} <= EVEN


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ("odd", "There is no filter 'odd', which the request names."),
        ({"all": ["even"], "not": ["odd"]}, "There is no filter 'odd', which the request names."),
        ({}, "The filter names no filter: give all, any or not."),
        ({"none": ["even"]}, "There is no field 'filter.none'."),
        (3, "filter must be a JSON object."),
    ],
)
def test_bad_choices(shop: ServerProcess, choice: Any, sentence: str):
    assert_problem(shop.recommend(history=HISTORY, filter=choice), 422, sentence)


async def test_more_filters_than_the_server_works_out_at_a_time_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch):
    bench, put = Bench(), "/v1/catalog/filters/few"
    with monkeypatch.context() as full:
        full.setattr(filters, "MAX_PUTS", 0)
        refused = await bench.client.put(put, json={"items": ["item-3"]})
    assert_problem(refused, 429, "The server is working out 0 filters already: send this one again in a moment.")
    assert refused.headers["retry-after"] == "1"
    assert (await bench.client.get("/v1/catalog/filters")).json()["filters"] == []
    assert (await bench.client.put(put, json={"items": ["item-3"]})).status_code == 200


async def test_a_filter_that_is_forgotten_while_others_are_waited_for_is_answered_as_it_was(monkeypatch: pytest.MonkeyPatch):
    bench = Bench()

    async def forget(_: object) -> None:
        await bench.services.filters.drop("few")

    monkeypatch.setattr(bench.services.announcer, "wait_for", forget)
    response = await bench.client.put("/v1/catalog/filters/few?wait=all", json={"items": ["item-3", "item-5"]})
    assert (response.status_code, response.json()) == (200, {"name": "few", "items": 2})


async def test_a_filter_whose_version_is_left_while_it_is_written_is_answered_and_is_there(monkeypatch: pytest.MonkeyPatch):
    """A Redis that fails over may take seconds for the write, in which engines die and another comes up with an earlier version."""
    bench = Bench()
    catalogs = bench.services.catalogs
    first, write = catalogs.active, catalogs.follower.write

    async def leave_meanwhile(changes: Changes) -> None:
        await write(changes)
        catalogs.active = replace(first, filters={}, meanings={})

    monkeypatch.setattr(catalogs.follower, "write", leave_meanwhile)
    response = await bench.client.put("/v1/catalog/filters/few", json={"items": ["item-3", "item-5"]})
    assert (response.status_code, response.json()) == (200, {"name": "few", "items": 2})
    await bench.services.filters.follow()
    assert (list(first.filters), len(catalogs.active.filters["few"])) == ([], 2)
