"""The middleware of every HTTP exchange: request id, size limit, time and status, and its trace if there is one, as plain ASGI.

Invariant: it wraps everything else, so the answer carries the request's id and is counted also after an unexpected error. Plain ASGI, as a
middleware with a task and a queue of its own costs more than all the rest of a request.
"""

import time
import uuid

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.metrics import logs
from server.metrics.registry import Metrics
from server.metrics.tracing import Tracing, end_request, traceparent

REQUEST_ID = b"x-request-id"
MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_ITEMS_BYTES = 8 * 1024 * 1024
MAX_CATALOG_BYTES = 64 * 1024**3
_ITEMS = "/v1/catalog/items"
_CATALOGS = "/v1/catalogs/"
_MAX_REQUEST_ID = 128
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ExchangeMiddleware:
    """Wraps an ASGI app."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        logs.request_id.set(request_id.decode("ascii"))
        status = 500
        received = 0
        most = _most_bytes(scope)

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise HTTPException(413, f"The body is larger than the {most // 1024} KiB that this server reads.")
            return message

        async def tagged_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id)]
            await send(message)

        try:
            await self._app(scope, limited_receive, tagged_send)
        finally:
            self._metrics.observe_response(_method(scope), _route(scope), status, time.perf_counter() - started)


class TraceMiddleware:
    """Wraps an ASGI app whose requests are traced; `ExchangeMiddleware` wraps it in turn."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def tagged_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if name := traceparent(span):
                    message["headers"] = [*message.get("headers", ()), (b"traceparent", name.encode())]
            await send(message)

        method = _method(scope)
        with self._tracing.request(method, scope["path"], _trace_headers(scope), logs.request_id.get() or "") as span:
            try:
                await self._app(scope, receive, tagged_send)
            finally:
                end_request(span, method, _route(scope), status)


def _most_bytes(scope: Scope) -> int:
    """The most bytes that the body of a request may have."""
    if scope["method"] == "PUT" and scope["path"].startswith(_CATALOGS):
        return MAX_CATALOG_BYTES
    return MAX_ITEMS_BYTES if scope["path"] == _ITEMS else MAX_BODY_BYTES


def _request_id(scope: Scope) -> bytes:
    """The client's id if it is one that can be echoed and logged safely, else a new one."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID and 0 < len(value) <= _MAX_REQUEST_ID and value.isascii() and value.decode("ascii").isprintable():
            return bytes(value)
    return uuid.uuid4().hex.encode()


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"


def _trace_headers(scope: Scope) -> dict[str, str]:
    """The headers that name the client's trace."""
    return {name.decode("ascii"): value.decode("latin-1") for name, value in scope["headers"] if name in (b"traceparent", b"tracestate")}


def _route(scope: Scope) -> str:
    """The template of the route that the router chose."""
    route = scope.get("route")
    return "unmatched" if route is None else str(route.path_format)
