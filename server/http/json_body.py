"""The short way of a request whose endpoint takes a JSON body and nothing else: the body is parsed and judged, and the endpoint called.

FastAPI's own way leads through layers of middleware, a router, and all that an endpoint may take (parameters of path, query, headers and
cookies, forms, dependencies), which costs several times as much as the body itself.

Invariant: the short way takes only what FastAPI's takes too, and makes the same of it. Every other request is left to FastAPI's way, so
that there is one place where mistakes are found and reported.
"""

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, get_type_hints

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from server.http.problems import ANSWERED, on_unexpected, response_to

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
# Under these names FastAPI's handlers look for what closes what they have opened; its layers of middleware put it there.
_STACKS = ("fastapi_middleware_astack", "fastapi_inner_astack", "fastapi_function_astack")


class ShortRoute(APIRoute):
    """A route that may have a short way: all of its handler, without what is before it."""

    short_way: Handler | None = None


class ShortWays:
    """A FastAPI app whose short ways begin before its middleware and its router.

    Attributes:
        ways: the route and the short way of each that has one, by method and path.
    """

    def __init__(self, api: FastAPI) -> None:
        self._api = api
        routes = [(route, route.short_way) for route in api.routes if isinstance(route, ShortRoute) and route.short_way is not None]
        self.ways = {(method, route.path): (route, way) for route, way in routes for method in route.methods or ()}
        self._short: ASGIApp = ServerErrorMiddleware(self._answer, on_unexpected)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_short = scope["type"] == "http" and (scope["method"], scope["path"]) in self.ways
        await (self._short if is_short else self._api)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"], way = self.ways[scope["method"], scope["path"]]
        request = Request(scope, receive, send)
        try:
            response = await way(request)
        except ANSWERED as error:
            response = await response_to(request, error)
        await response(scope, receive, send)


def short_way(dependant: Dependant, long_way: Handler) -> Handler | None:
    """The short way to an endpoint; None if it can have none.

    Args:
        dependant: all that the endpoint takes; the short way is for one that makes the whole response itself.
        long_way: FastAPI's handler.
    """
    taken = _model_alone(dependant)
    if taken is None:
        return None
    name, model = taken
    endpoint, request_name = dependant.call, dependant.request_param_name
    assert endpoint is not None
    assert request_name is not None

    async def handle(request: Request) -> Response:
        if not _is_json(request.scope["headers"]):
            return await otherwise(request)
        try:
            body = model.model_validate(orjson.loads(await request.body()))
        except (ValueError, ClientDisconnect):
            # The request keeps its body, for the other way to judge.
            return await otherwise(request)
        response: Response = await endpoint(**{name: body, request_name: request})
        return response

    async def otherwise(request: Request) -> Response:
        async with AsyncExitStack() as stack:
            request.scope.update(dict.fromkeys(_STACKS, stack))
            return await long_way(request)

    return handle


def _model_alone(dependant: Dependant) -> tuple[str, type[BaseModel]] | None:
    """The name and the model of the body, of an endpoint that takes nothing but that and the request."""
    if get_type_hints(dependant.call).get("return") is not Response:
        return None
    others = dependant.path_params + dependant.query_params + dependant.header_params + dependant.cookie_params
    if others or dependant.dependencies or dependant.request_param_name is None or len(dependant.body_params) != 1:
        return None
    annotation: Any = dependant.body_params[0].field_info.annotation
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return (dependant.body_params[0].name, annotation) if is_model else None


def _is_json(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the body is declared as JSON, once."""
    kinds = [value for name, value in headers if name == b"content-type"]
    return len(kinds) == 1 and kinds[0].partition(b";")[0].strip().lower() == b"application/json"
