"""The OpenAPI entries of answers that FastAPI can't work out from a route's types."""

from typing import Any

from pydantic import BaseModel

from server.http.problems import MEDIA_TYPE
from server.schemas.recommendations import Problem

_DESCRIPTIONS = {
    400: "The body is not JSON.",
    404: "There is no such user, filter or version.",
    409: "What is there already does not allow it.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "Something in the request is not acceptable; `detail` says what.",
    429: "The server has as many requests as it takes on, or the list would not be ready in time; see `Retry-After`.",
    503: "The engine or the history store is not available; see `Retry-After`.",
    507: "There is no room to store it.",
    504: "The answer was not ready within the timeout.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of a route's error statuses."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {status: {"description": _DESCRIPTIONS[status], "content": content} for status in statuses}


def answer(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entry of a route that encodes its answer itself."""
    return {200: {"model": model}}
