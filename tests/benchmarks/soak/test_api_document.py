"""The judge of answers, on answers that a document knows and on those that it does not."""

import json
from typing import Any

import httpx
import pytest

from benchmarks.soak.api_document import ApiDocument

COUNT = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
DOCUMENT = {
    "components": {"schemas": {"Count": COUNT}},
    "paths": {
        "/things/{name}": {
            "get": {
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Count"}}}},
                    "404": {"content": {"application/problem+json": {"schema": {"type": "object"}}}},
                }
            },
            "delete": {"responses": {"204": {}, "default": {"content": {"application/json": {"schema": COUNT}}}}},
        },
        "/things/first": {"post": {"responses": {"201": {"content": {"text/plain": {}}}}}},
    },
}


def answer(
    status: int, body: Any = None, *, media_type: str = "application/json", method: str = "GET", path: str = "/things/a"
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": media_type} if media_type else {}
    return httpx.Response(status, content=content, headers=headers, request=httpx.Request(method, f"http://server{path}?limit=1"))


@pytest.mark.parametrize(
    "known",
    [
        answer(200, {"count": 3}),
        answer(200, {"count": 3}, media_type="application/json; charset=utf-8"),
        answer(404, {}, media_type="application/problem+json"),
        answer(204, b"", media_type="", method="DELETE"),
        answer(431, {"count": 1}, method="DELETE"),
        answer(201, b"done", media_type="text/plain", method="POST", path="/things/first"),
    ],
    ids=str,
)
def test_what_the_document_knows_passes(known: httpx.Response):
    assert ApiDocument(DOCUMENT).complaint(known) is None


@pytest.mark.parametrize(
    ("unknown", "complaint"),
    [
        (answer(200, {"count": "3"}), "GET /things/{name} answered 200 with a body that its schema does not allow, '3' is not of type"),
        (answer(200, {}), "'count' is a required property"),
        (answer(200, b"{"), "a body that is no JSON"),
        (answer(500, {}), "GET /things/{name} answered 500, which is not documented"),
        (answer(500, {"count": 1}, method="DELETE"), "DELETE /things/{name} answered 500, which is not documented"),
        (answer(431, {}, method="DELETE"), "'count' is a required property"),
        (answer(404, {}), "answered 404 with the content type application/json, which is not documented"),
        (answer(204, b"text", media_type="", method="DELETE"), "answered 204 with the content type of no name"),
        (answer(200, {}, path="/others"), "GET /others is not documented"),
        (answer(200, {}, method="PUT"), "PUT /things/a is not documented"),
    ],
)
def test_what_it_does_not_know_is_said(unknown: httpx.Response, complaint: str):
    told = ApiDocument(DOCUMENT).complaint(unknown)
    assert told is not None
    assert complaint in told
