"""Routes that let in only clients that may use them, and refuse query parameters that they do not know or that are given twice. Reason: a
parameter with a slip in its name would silently change nothing, and so would all but one of the values of a repeated one.

Invariant: every endpoint says which scope it needs, or that it is open to all; a route to one that says neither can't be built.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request, Response

from drafting.catalog.json_values import listed
from drafting.errors import quoted
from server.errors import InvalidRequest
from server.http.json_body import Handler, ShortRoute, short_way
from server.http.problems import documented
from server.keys.gate import OPERATIONS, Gate
from server.keys.key import Key, Scope

SCHEME = "key"
# Where a request carries its key, and an endpoint its scope.
_KEY, _NEEDS = "atspeed.key", "__needs__"
# Set once an endpoint has said how many requests its body counts as.
_CHARGED = "atspeed.charged"
# Where a request carries the function that waits for the revision it asks for: it is called only once the request is let in.
REACH = "atspeed.reach"
REVISION_DIGITS = 18
_MIN_REVISION = {
    "name": "X-Min-Revision",
    "in": "header",
    "description": "The answer is of this revision of the control store or a later one; 503 if it is not reached in time.",
    "schema": {"type": "integer", "minimum": 0, "maximum": 10**REVISION_DIGITS - 1},
}

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Needs:
    """What an endpoint needs: a scope, unless it is open to all; the port of operations, if it `operates`; and whether it `charges`."""

    scope: Scope | None
    operates: bool
    charges: bool


def needs(scope: Scope | None, *, operates: bool = False, charges: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Say which scope an endpoint needs; None opens it to all, on the port of operations only if it `operates`.

    An endpoint that `charges` reads its body, then calls `charge` with the number of requests that the body counts as. It is refused before
    its body is read if the rate of the key leaves no room for even one request. A request of any other endpoint counts as one.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        vars(endpoint)[_NEEDS] = _Needs(scope, operates or scope in OPERATIONS, charges)
        return endpoint

    return mark


def key_of(request: Request) -> Key | None:
    """The key of a request; None on a server without keys."""
    key: Key | None = request.scope.get(_KEY)
    return key


async def charge(gate: Gate, request: Request, requests: int) -> None:
    """Count a request of an endpoint that `charges` as so many against the rate of its key, all of them or none.

    Raises:
        KeyBusy, KeyForbids: they are too many now, or at once.
    """
    if (key := key_of(request)) is not None:
        request.scope[_CHARGED] = True
        await gate.charge(key, requests)


def strict_route(gate: Gate, check: Callable[[], None] | None = None) -> type[ShortRoute]:
    """The class of the routes behind a gate.

    Args:
        check: is called for each request that the gate has let in; it raises ServerError to refuse the request. Routes that show what there
            is refuse in this way until the server has read the control store: what they would show before that would pass for all.
    """

    class StrictRoute(ShortRoute):
        """A route that checks the key, and answers 422 to a query parameter that it does not document or that is given twice."""

        def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
            """
            Raises:
                TypeError: the endpoint does not say what it needs.
            """
            if _NEEDS not in vars(endpoint):
                raise TypeError(f"{path} says neither which scope it needs nor that it is open to all: put @needs on {endpoint.__name__}.")
            self.needs: _Needs = vars(endpoint)[_NEEDS]
            refusals: tuple[int, ...] = (404,) if self.needs.operates else ()
            if self.needs.scope is not None:
                # 503: `check` refuses, or the revision that is asked for is not reached.
                refusals += (401, 403, 429, 503) if gate.has_keys else (403, 503)
                security = {"security": [{SCHEME: [self.needs.scope.value]}]} if gate.has_keys else {}
                options["openapi_extra"] = (options.get("openapi_extra") or {}) | {"parameters": [_MIN_REVISION]} | security
            more = {status: each for status, each in documented(*refusals).items() if status in refusals}
            options["responses"] = more | (options.get("responses") or {})
            super().__init__(path, endpoint, **options)

        def get_route_handler(self) -> Handler:
            """Check the key, then the query, before anything else of the request is read."""
            long_way = super().get_route_handler()
            short = short_way(self.dependant, long_way)
            handler = short or long_way
            known = {field.alias for field in self.dependant.query_params}
            needed, operates, charges = self.needs.scope, self.needs.operates, self.needs.charges

            async def strict(request: Request) -> Response:
                scope = request.scope
                key = None
                if operates:
                    gate.check_port(scope["server"][1] if scope["server"] else None)
                if needed is not None:
                    client = scope["client"]
                    key = gate.identify(needed, scope["headers"], None if client is None else client[0])
                if scope["query_string"]:
                    _check(scope["query_string"], known)
                if key is None:
                    return await answer(request)
                scope[_KEY] = key
                await gate.enter(key, 0 if charges else 1)
                try:
                    return await (charged(request, key) if charges else answer(request))
                finally:
                    gate.leave(key)

            async def charged(request: Request, key: Key) -> Response:
                try:
                    return await answer(request)
                finally:
                    # The request was refused before it was known what its body counts as.
                    if _CHARGED not in request.scope:
                        await gate.charge(key, 1)

            async def answer(request: Request) -> Response:
                if needed is not None and (reach := request.scope.get(REACH)) is not None:
                    await reach()
                if check is not None:
                    check()
                return await handler(request)

            self.short_way = None if short is None else strict
            return strict

    return StrictRoute


def _check(query: bytes, known: set[str]) -> None:
    names = [name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)]
    if (unknown := next((name for name in names if name not in known), None)) is not None:
        possible = f"possible here: {listed(sorted(known))}" if known else "there are none here"
        raise InvalidRequest(f"There is no query parameter {quoted(unknown)}; {possible}.")
    if (again := next((name for place, name in enumerate(names) if name in names[:place]), None)) is not None:
        raise InvalidRequest(f"The query parameter {quoted(again)} is given more than once: a request takes one value of it.")
