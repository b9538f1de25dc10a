"""Routes that refuse what they do not know: a query parameter with a slip in its name would silently change nothing."""

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.routing import APIRoute

from drafting.catalog.json_values import listed
from server.errors import InvalidRequest, quoted


class StrictRoute(APIRoute):
    """A route that answers 422 to query parameters that it does not document."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Check the query before anything else of the request is read."""
        handler = super().get_route_handler()
        known = {field.alias for field in self.dependant.query_params}

        async def strict(request: Request) -> Response:
            if request.scope["query_string"]:
                _check(request.scope["query_string"], known)
            return await handler(request)

        return strict


def _check(query: bytes, known: set[str]) -> None:
    names = (name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    if (unknown := next((name for name in names if name not in known), None)) is not None:
        possible = f"possible here: {listed(sorted(known))}" if known else "there are none here"
        raise InvalidRequest(f"There is no query parameter {quoted(unknown)}; {possible}.")
