"""What the OpenAPI document must say, beyond what FastAPI makes of the routes by itself."""

import json
from typing import Any

import pytest

from server.http.app import build_api
from server.http.connections import MALFORMED
from server.schemas.catalogs import UPLOAD_FORMS
from tests.server.http.test_app import Bench


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_api(Bench().services).openapi()


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{method.upper()} {path}": each for path, methods in document["paths"].items() for method, each in methods.items()}


def test_a_filter_is_a_name_or_an_object(document: dict[str, Any]):
    forms = document["components"]["schemas"]["RecommendationRequest"]["properties"]["filter"]["anyOf"]
    assert [form.get("type") or form["$ref"] for form in forms] == ["string", "#/components/schemas/FilterBody", "null"]


def test_the_name_of_a_filter_has_no_slash(document: dict[str, Any]):
    paths = [each for name, each in operations(document).items() if "/filters/{name}" in name]
    names = [parameter["schema"]["pattern"] for each in paths for parameter in each["parameters"] if parameter["name"] == "name"]
    assert names == ["^[^/]+$"] * 4


def test_events_are_a_list_or_one_that_is_the_body_itself(document: dict[str, Any]):
    schemas = document["components"]["schemas"]
    body = schemas["EventsBody"]
    assert not body.keys() & {"type", "properties", "required", "additionalProperties"}
    several, one = body["anyOf"]
    forms = [several, schemas[one["$ref"].removeprefix("#/components/schemas/")]]
    assert [form["required"] for form in forms] == [["events"], ["item_id"]]
    assert all(form["additionalProperties"] is False for form in forms)
    for example in body["examples"]:
        assert [form["required"][0] for form in forms if example.keys() <= form["properties"].keys()] in (["events"], ["item_id"])


def test_an_upload_has_a_body_of_every_form(document: dict[str, Any]):
    body = operations(document)["PUT /v1/catalogs/{version}"]["requestBody"]
    assert body["required"]
    assert body["content"].keys() == {"application/json", *UPLOAD_FORMS}
    for form, suffix in UPLOAD_FORMS.items():
        assert body["content"][form]["schema"] == {
            "type": "string",
            "format": "binary",
            "description": f"The bytes of a `{suffix}` catalog.",
        }


def test_every_problem_is_described_with_its_media_type_and_when_to_come_again(document: dict[str, Any]):
    for name, operation in operations(document).items():
        problems = {status: answer for status, answer in operation["responses"].items() if status[0] in "45d"}
        assert {"400", "422", "default"} <= problems.keys(), name
        for status, answer in problems.items():
            assert list(answer["content"]) == ["application/problem+json"], (name, status)
            assert answer["description"]
            assert ("Retry-After" in answer.get("headers", {})) == (status in ("429", "503")), (name, status)


def test_who_is_refused_before_a_path_is_known_is_told_all_that_a_problem_has(document: dict[str, Any]):
    told = json.loads(MALFORMED.response().partition(b"\r\n\r\n")[2])
    for name, operation in operations(document).items():
        schema = operation["responses"]["default"]["content"]["application/problem+json"]["schema"]
        assert set(schema["required"]) <= told.keys() <= schema["properties"].keys(), name


def test_what_all_answers_have_in_common_stands_beside_every_operation(document: dict[str, Any]):
    common = {"X-Request-Id", "X-Control-Revision", "X-Control-Behind"}
    assert document["components"]["headers"].keys() == common
    for name, operation in operations(document).items():
        for status, answer in operation["responses"].items():
            assert (common <= answer.get("headers", {}).keys()) == (status != "default"), (name, status)
        asks = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "header"]
        assert asks == (["X-Min-Revision"] if " /v1/" in name else []), name
        assert " /v1/" not in name or "503" in operation["responses"], name
