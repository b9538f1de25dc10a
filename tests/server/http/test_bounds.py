"""Every field of every request has a bound by name, and a body of nothing but mistakes is refused as fast as one mistake."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from server.schemas.catalogs import FilterDefinition, NewItemsBody
from server.schemas.recommendations import RecommendationRequest
from server.schemas.users import EventsBody
from tests.processor_time import timed
from tests.server.server_process import ServerProcess

MOST_ERRORS = 4
# The process that places items refuses what float32 can't hold, with the item's name.
BEYOND_FLOAT32 = "has no minimum and maximum"


def unbounded(schema: dict[str, Any], path: str, schemas: dict[str, Any]) -> Iterator[str]:
    """The parts of a JSON schema that may be as long or as large as a client likes."""
    if "$ref" in schema:
        yield from unbounded(schemas[schema["$ref"].rpartition("/")[2]], path, schemas)
    for each in (*schema.get("anyOf", ()), *schema.get("allOf", ()), *schema.get("oneOf", ())):
        yield from unbounded(each, path, schemas)
    if schema.keys() & {"enum", "const"}:
        return
    match schema.get("type"):
        case "array":
            if "maxItems" not in schema:
                yield f"{path} has no maxItems"
            yield from unbounded(schema["items"], f"{path}[]", schemas)
        case "string":
            if not schema.keys() & {"maxLength", "pattern", "format"}:
                yield f"{path} has no maxLength"
        case "integer" | "number":
            if not schema.keys() >= {"minimum", "maximum"}:
                yield f"{path} has no minimum and maximum"
        case "object":
            for name, each in schema.get("properties", {}).items():
                yield from unbounded(each, f"{path}.{name}", schemas)
            if schema.get("additionalProperties", False) is not False and "maxProperties" not in schema:
                yield f"{path} has no maxProperties"


def test_every_field_and_parameter_has_a_bound(server: ServerProcess) -> None:
    openapi = server.client.get("/openapi.json").json()
    schemas, found, looked_at = openapi["components"]["schemas"], [], 0
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            place = f"{method.upper()} {path}"
            for parameter in operation.get("parameters", ()):
                looked_at += 1
                found += unbounded(parameter["schema"], f"{place} {parameter['name']}", schemas)
            for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
                # What is no JSON is a catalog, whose bounds are the file's.
                if media_type == "application/json":
                    looked_at += 1
                    found += unbounded(content["schema"], place, schemas)
    assert looked_at > 12
    assert found == [f"POST /v1/catalog/items.items[].embedding[] {BEYOND_FLOAT32}"]


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (RecommendationRequest, {"history": ["a"], "exclude": [1] * 200_000}),
        (RecommendationRequest, {"history": [None] * 200_000}),
        (RecommendationRequest, {"history": ["a"]} | {f"x{i}": 1 for i in range(150_000)}),
        (RecommendationRequest, {"history": ["a"], "filter": {f"x{i}": 1 for i in range(150_000)}}),
        (FilterDefinition, {"items": [""] * 200_000}),
        (NewItemsBody, {"items": [{"item_id": "a", "embedding": ["x"] * 1000}] * 1000}),
        (NewItemsBody, {"items": [{"item_id": "a", "identifier": ["<a>"], "attributes": {f"{i:0300d}": 1 for i in range(20_000)}}]}),
        (NewItemsBody, {"items": [None] * 1_000_000}),
        (EventsBody, {"events": [{"a": 1, "b": 2}] * 1000}),
    ],
    ids=range(9),
)
def test_a_body_of_mistakes_costs_no_more_than_one(model: type[BaseModel], body: dict[str, Any]) -> None:
    """8 MiB of texts in place of numbers were 33 s in which no other client was answered."""

    def refused() -> None:
        with pytest.raises(ValidationError) as caught:
            model.model_validate(body)
        assert caught.value.error_count() <= MOST_ERRORS

    _, seconds = timed(refused, enough=0.25)
    assert seconds < 0.25


def test_long_names_are_cut_in_sentences(server: ServerProcess) -> None:
    body = {"items": [{"item_id": "a", "identifier": ["<a>"], "attributes": {"n" * 100_000: 1}}]}
    for path, sent in (("/v1/catalog/items", body), ("/v1/recommendations", {"history": ["item-1"], "n" * 100_000: 1})):
        response = server.client.post(path, content=json.dumps(sent), headers={"content-type": "application/json"})
        assert response.status_code == 422
        assert len(response.content) < 1000


def test_many_unknown_fields_are_told_as_one(server: ServerProcess) -> None:
    response = server.client.post("/v1/recommendations", json={"history": ["item-1"]} | {f"x{i}": 1 for i in range(100)})
    assert response.json()["detail"] == "There is no field 'x0'."
    response = server.client.post("/v1/recommendations", json={"history": ["item-1"], "filter": {f"x{i}": 1 for i in range(100)}})
    assert response.json()["detail"] == "There is no field 'filter.x0'."
