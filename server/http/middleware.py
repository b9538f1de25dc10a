"""The middleware of every HTTP exchange: request id, limits of URL and body, HEAD, time and status, and its trace if there is one.

Invariant: it wraps everything else, so the answer carries the request's id and is counted also after an unexpected error. Plain ASGI, as a
middleware with a task and a queue of its own costs more than all the rest of a request.
"""

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote_to_bytes

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.control.follower import Follower, written
from server.errors import InvalidRequest
from server.http.problems import Problem
from server.http.strict_route import REACH, REVISION_DIGITS
from server.metrics import logs
from server.metrics.ids import new_id
from server.metrics.registry import Metrics
from server.metrics.tracing import Tracing, end_request, traceparent
from server.scheduling.drain import Drain
from server.try_again import NotReached

REQUEST_ID = b"x-request-id"
REVISION = b"x-control-revision"
BEHIND = b"x-control-behind"
MIN_REVISION = b"x-min-revision"
NO_SNIFFING = (b"x-content-type-options", b"nosniff")
CLOSE = (b"connection", b"close")
MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_ITEMS_BYTES = 8 * 1024 * 1024
MAX_BACKUP_BYTES = 2**30
_ITEMS = "/v1/catalog/items"
_CATALOGS = "/v1/catalogs/"
_BACKUP = "/v1/control/backup"
# The route of what no route was chosen for.
UNMATCHED = "unmatched"
_MAX_REQUEST_ID = 128
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True)
class _BodyLimit:
    """How large a body may be.

    Attributes:
        most: bytes.
        sentence: about a body that has more.
        by_piece: True for an upload, each piece of which has the time that others have as a whole.
    """

    most: int
    sentence: str
    by_piece: bool = False

    @classmethod
    def in_memory(cls, most: int, *, by_piece: bool = False) -> "_BodyLimit":
        """The limit of a body that the server holds in memory."""
        return cls(most, f"The body is larger than the {most // 1024} KiB that this server reads.", by_piece)


class _Body:
    """The body of one request on its way to the app."""

    def __init__(self, receive: Receive, limit: _BodyLimit, seconds: float) -> None:
        """`seconds` is the time for the body, or for a piece of it."""
        self._receive, self._limit, self._seconds = receive, limit, seconds
        self._received, self._has_more = 0, True
        self._ends = asyncio.get_running_loop().time() + seconds

    async def receive(self) -> Message:
        """The next message; once the body has ended, whenever it comes.

        Raises:
            HTTPException: the body takes too long, or is too large.
        """
        if not self._has_more:
            return await self._receive()
        if self._limit.by_piece:
            self._ends = asyncio.get_running_loop().time() + self._seconds
        try:
            async with asyncio.timeout_at(self._ends):
                message = await self._receive()
        except TimeoutError as error:
            raise HTTPException(408, f"The body took longer than {self._seconds:g} s.", {"Connection": "close"}) from error
        self._has_more = message.get("more_body", False)
        self._received += len(message.get("body", b""))
        if self._received > self._limit.most:
            raise HTTPException(413, self._limit.sentence)
        return message


class ExchangeMiddleware:
    """Wraps the app: gives each exchange its id and its limits, its answer the headers that all have, and counts it.

    An answer of a server that ends closes its connection. Reason: a client that asks again by the same one would reach the same server,
    also where a proxy of connections, such as a Service of Kubernetes, has long led new ones elsewhere.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        body_seconds: float,
        catalog_gib: float,
        follower: Follower,
        timeout_seconds: float,
        drain: Drain,
    ) -> None:
        """
        Args:
            timeout_seconds: how long a request may wait for the revision that it asks for.
        """
        self._app = app
        self._follower = follower
        self._timeout_seconds = timeout_seconds
        self._drain = drain
        self._metrics = metrics
        self._body_seconds = body_seconds
        self._json, self._items = _BodyLimit.in_memory(MAX_BODY_BYTES), _BodyLimit.in_memory(MAX_ITEMS_BYTES)
        self._backup = _BodyLimit.in_memory(MAX_BACKUP_BYTES, by_piece=True)
        sentence = f"The catalog is larger than the {catalog_gib:g} GiB that this server takes (--catalog-max-gib)."
        self._catalog = _BodyLimit(int(catalog_gib * 2**30), sentence, by_piece=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = request_id_of(scope)
        logs.request_id.set(request_id.decode("ascii"))
        status = 500
        # The revision that the answer tells: a list, because what the request writes or waits for replaces its only element.
        revision = [self._follower.applied.revision]
        behind = behind_header(self._follower)
        written.set(revision)
        limit = self._limit_of(scope)
        body = _Body(receive, limit, self._body_seconds)
        is_head = scope["method"] == "HEAD"
        if is_head:
            # As GET, with an answer without its body; the server below sees the scope as it was.
            scope = {**scope, "method": "GET"}

        async def tagged_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = (REQUEST_ID, request_id), (REVISION, b"%d" % revision[0]), NO_SNIFFING, *behind
                # What an upload still sends would meet a closed connection, and its client never read the answer.
                end = (CLOSE,) if self._drain.is_ending and not limit.by_piece else ()
                message["headers"] = [*message.get("headers", ()), *own, *end]
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        try:
            if (least := _min_revision(scope)) is not None:
                scope = {**scope, REACH: partial(self._reach, least, revision)}
            app = self._app if _is_utf8(scope) else _not_utf8
            await app(scope, body.receive, tagged_send)
        finally:
            method = "HEAD" if is_head else method_of(scope)
            self._metrics.observe_response(method, _route(scope), status, time.perf_counter() - started)

    async def _reach(self, least: bytes, revision: list[int]) -> None:
        """Wait for a revision, and put the one that is reached into `revision`.

        Raises:
            InvalidRequest: it is none.
            NotReached: it is not reached in time.
        """
        if not least.isdigit() or len(least) > REVISION_DIGITS:
            raise InvalidRequest("The header X-Min-Revision must be a revision, as X-Control-Revision tells it.")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._follower.reached(int(least))
        except TimeoutError as error:
            applied = self._follower.applied.revision
            raise NotReached(f"This server has applied revision {applied}, and not yet {int(least)} (X-Min-Revision).") from error
        finally:
            revision[:] = [self._follower.applied.revision]

    def _limit_of(self, scope: Scope) -> _BodyLimit:
        """The limit of a request's body."""
        if _is_upload(scope):
            return self._catalog
        if scope["path"] == _BACKUP:
            return self._backup
        return self._items if scope["path"] == _ITEMS else self._json


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
                if parent := traceparent(span):
                    message["headers"] = [*message.get("headers", ()), (b"traceparent", parent.encode())]
            await send(message)

        method = method_of(scope)
        with self._tracing.request(method, scope["path"], _trace_headers(scope), logs.request_id.get() or "") as span:
            try:
                await self._app(scope, receive, tagged_send)
            finally:
                end_request(span, method, _route(scope), status)


def _is_utf8(scope: Scope) -> bool:
    """Whether the path and the query are UTF-8; what is not would come out of their decoding as another text."""
    raw = (scope.get("raw_path") or b"") + b"?" + scope["query_string"]
    if b"%" not in raw and raw.isascii():
        return True
    try:
        unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return False
    return True


async def _not_utf8(scope: Scope, receive: Receive, send: Send) -> None:
    sentence = "The URL holds percent-encoded bytes that are not UTF-8: encode text as UTF-8 before it is percent-encoded."
    await Problem(400, sentence).response(Request(scope))(scope, receive, send)


def _min_revision(scope: Scope) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == MIN_REVISION), None)


def _is_upload(scope: Scope) -> bool:
    """Whether the body is a catalog."""
    return scope["method"] == "PUT" and scope["path"].startswith(_CATALOGS) and not _is_json(scope)


def _is_json(scope: Scope) -> bool:
    kinds = (value.partition(b";")[0] for name, value in scope["headers"] if name == b"content-type")
    return any(kind.strip().lower() == b"application/json" for kind in kinds)


def request_id_of(scope: Scope) -> bytes:
    """The client's id if it is one that can be echoed and logged safely, else a new one."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID and 0 < len(value) <= _MAX_REQUEST_ID and value.isascii() and value.decode("ascii").isprintable():
            return bytes(value)
    return new_id().encode()


def behind_header(follower: Follower) -> tuple[tuple[bytes, bytes], ...]:
    """A header that says for how long this server can't know what others have written, if that is longer than it should be."""
    return () if follower.is_current else ((BEHIND, b"%.2f" % follower.behind_seconds()),)


def method_of(scope: Scope) -> str:
    """The method as metrics name it."""
    return scope["method"] if scope["method"] in _METHODS else "other"


def _trace_headers(scope: Scope) -> dict[str, str]:
    """The headers that name the client's trace."""
    return {name.decode("ascii"): value.decode("latin-1") for name, value in scope["headers"] if name in (b"traceparent", b"tracestate")}


def _route(scope: Scope) -> str:
    """The template of the route that the router chose."""
    route = scope.get("route")
    return UNMATCHED if route is None else str(route.path_format)
