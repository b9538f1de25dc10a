"""The short way of a JSON body, against FastAPI's own: whatever comes, both answer the same."""

import json

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp

from server.http import problems
from server.http.json_body import ShortRoute, ShortWays, short_way
from server.schemas.recommendations import RecommendationRequest

GOOD = {"user_id": "u", "k": 3, "fields": ["url"], "seed": 2**53 - 1}
BODIES: dict[str, bytes] = {
    "good": json.dumps(GOOD).encode(),
    "another encoding": json.dumps(GOOD).encode("utf-16"),
    "a name twice": b'{"user_id": "u", "k": 3, "k": 4}',
    "half a surrogate": rb'{"user_id": "\ud800"}',
    "empty": b"",
    "null": b"null",
    "a list": b"[1]",
    "a text": b'"user_id"',
    "no object": b"7",
    "cut off": b'{"user_id": "u"',
    "no UTF-8": b'{"user_id": "\xff"}',
    "no number of JSON": b'{"user_id": "u", "temperature": NaN}',
    "a long number": b'{"user_id": "u", "seed": 123456789012345678901234567890}',
    "a number too long": b'{"user_id": "u", "seed": ' + b"1" * 5000 + b"}",
    "a wrong type": b'{"user_id": "u", "k": "3"}',
    "an unknown field": b'{"user_id": "u", "n": 3}',
    "a broken rule": b'{"user_id": "u", "history": ["a"]}',
    "deep": b"[" * 100_000,
}
KINDS = [
    "application/json",
    "Application/JSON; charset=utf-8",
    "application/problem+json",
    "text/json",
    "application/json/x",
    "text/plain",
    "",
    None,
]


def app_with(*, short: bool) -> ASGIApp:
    """An app that answers what it has understood."""
    app = FastAPI(docs_url=None)
    problems.install(app)

    class Route(ShortRoute):
        def get_route_handler(self):
            handler = super().get_route_handler()
            if short and self.path == "/echo":
                self.short_way = short_way(self.dependant, handler)
            return handler

    app.router.route_class = Route

    @app.post("/echo")
    async def echo(body: RecommendationRequest, request: Request) -> Response:
        return Response(f"{body!r} {await request.body()!r}".encode("utf-8", "surrogatepass"))

    ways = ShortWays(app)
    assert list(ways.ways) == ([("POST", "/echo")] if short else [])
    return ways


@pytest.mark.parametrize("kind", KINDS)
async def test_it_answers_as_the_long_way_does(kind: str | None):
    headers = {} if kind is None else {"content-type": kind}
    clients = [httpx.AsyncClient(transport=httpx.ASGITransport(app_with(short=short)), base_url="http://x") for short in (False, True)]
    for name, body in BODIES.items():
        expected, got = [await client.post("/echo", content=body, headers=headers) for client in clients]
        assert (got.status_code, got.content) == (expected.status_code, expected.content), name
        assert (got.status_code == 200) == (name in ("good", "another encoding", "a name twice") and kind in KINDS[:3]), name


async def test_a_client_that_is_gone_before_its_body_ends_the_same_way():
    async def answer(app: ASGIApp) -> list[object]:
        pieces = iter([{"type": "http.request", "body": b'{"user_id"', "more_body": True}])
        sent: list[object] = []

        async def receive() -> dict[str, object]:
            return next(pieces, {"type": "http.disconnect"})

        async def send(message: object) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        await app({"type": "http", "method": "POST", "path": "/echo", "query_string": b"", "headers": headers}, receive, send)  # type: ignore[arg-type]
        return sent

    assert await answer(app_with(short=True)) == await answer(app_with(short=False))


def test_endpoints_that_take_more_or_make_no_response_go_the_long_way():
    app = FastAPI(docs_url=None)

    @app.post("/query")
    async def with_query(body: RecommendationRequest, request: Request, limit: int = 1) -> Response:
        raise NotImplementedError

    @app.post("/answer")
    async def with_answer(body: RecommendationRequest, request: Request) -> dict[str, int]:
        raise NotImplementedError

    @app.post("/nothing")
    async def without_body(request: Request) -> Response:
        raise NotImplementedError

    for route in app.router.routes[-3:]:
        assert short_way(route.dependant, route.get_route_handler()) is None  # type: ignore[attr-defined]
