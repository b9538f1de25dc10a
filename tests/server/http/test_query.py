"""Query parameters that a route does not document are refused, on all routes."""

import pytest
from fastapi.routing import APIRoute

from server.http.app import build_api
from tests.server.http.test_app import Bench
from tests.server.server_process import assert_problem


async def test_every_operation_refuses_a_query_parameter_that_it_does_not_document():
    bench, tried = Bench(), 0
    for path, operations in build_api(bench.services).openapi()["paths"].items():
        url = path.replace("{user_id}", "a").replace("{name}", "a").replace("{version}", "a").replace("{item_id}", "a")
        for method, operation in operations.items():
            known = sorted(each["name"] for each in operation.get("parameters", ()) if each["in"] == "query")
            possible = f"possible here: {', '.join(known)}" if known else "there are none here"
            response = await bench.client.request(method, f"{url}?Limit=1")
            assert_problem(response, 422, f"There is no query parameter 'Limit'; {possible}.")
            tried += 1
    assert tried > 15


@pytest.mark.parametrize("query", ["limit=1&ofset=2", "limit=1&ofset", "ofset=&limit=1", "limit=1&of%73et=2"])
async def test_one_unknown_name_among_known_ones_is_told(query: str):
    response = await Bench().client.get(f"/v1/catalog/items?{query}")
    assert response.status_code == 422
    assert response.json()["detail"].startswith("There is no query parameter 'ofset'; possible here: limit, offset, q")


@pytest.mark.parametrize("query", ["", "?", "?limit=3", "?offset=2&limit=1"])
async def test_known_names_pass(query: str):
    assert (await Bench().client.get(f"/v1/catalog/items{query}")).status_code == 200


@pytest.mark.parametrize("query", ["limit=1&limit=2", "limit=1&limit=1", "limit=1&offset=0&limit=", "limit=1&lim%69t=2"])
async def test_a_name_that_is_given_twice_is_told(query: str):
    response = await Bench().client.get(f"/v1/catalog/items?{query}")
    assert_problem(response, 422, "The query parameter 'limit' is given more than once: a request takes one value of it.")


def test_routes_are_strict_by_their_class():
    api = build_api(Bench().services)
    strict = [route for route in api.routes if isinstance(route, APIRoute) and type(route) is not APIRoute]
    assert len(strict) == sum(map(len, api.openapi()["paths"].values()))
