"""The short way of a request whose endpoint takes a JSON body and nothing else: the body is parsed and judged, and the endpoint called.

FastAPI's own way goes through all that an endpoint may take (parameters of path, query, headers and cookies, forms, dependencies), which
costs several times as much as the body itself.

Invariant: the short way takes only what FastAPI's takes too, and makes the same of it. Whatever is not so is left to FastAPI's, so that
there is one place where mistakes are found and told.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

Handler = Callable[[Request], Awaitable[Response]]


def body_handler(dependant: Dependant, otherwise: Handler) -> Handler:
    """The handler of an endpoint, short if it can be.

    Args:
        dependant: all that the endpoint takes; the short way is for one that makes the whole response itself.
        otherwise: FastAPI's handler.
    """
    taken = _model_alone(dependant)
    if taken is None:
        return otherwise
    name, model = taken
    endpoint, request_name = dependant.call, dependant.request_param_name
    assert endpoint is not None
    assert request_name is not None

    async def handle(request: Request) -> Response:
        if not _is_json(request.scope["headers"]):
            return await otherwise(request)
        try:
            body = model.model_validate(json.loads(await request.body()))
        except (ValueError, RecursionError, ClientDisconnect):
            # The request keeps its body, for the other way to judge.
            return await otherwise(request)
        response: Response = await endpoint(**{name: body, request_name: request})
        return response

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
