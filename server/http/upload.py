"""The body of a request that a route reads itself, piece by piece.

Invariant: a client that is gone before its body has ended is counted as a client's mistake, not as a fault of the server. So is a body that
must be JSON and is not, with the sentence that FastAPI's own way has for it.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from server.errors import UploadCutOff


async def pieces_of(request: Request) -> AsyncIterator[bytes]:
    """The pieces of the body as they come.

    Raises:
        UploadCutOff: the client is gone before the last one.
    """
    received = 0
    try:
        async for piece in request.stream():
            received += len(piece)
            yield piece
    except ClientDisconnect as error:
        raise UploadCutOff(f"The upload ended after {received:,} bytes.") from error


async def body_of(request: Request) -> bytes:
    """The whole body; raises as `pieces_of`."""
    return b"".join([piece async for piece in pieces_of(request)])


def parsed(body: bytes) -> Any:
    """The value of a body in JSON; None of no body.

    Raises:
        RequestValidationError, HTTPException: it is no JSON.
    """
    try:
        return json.loads(body) if body else None
    except json.JSONDecodeError as error:
        raise RequestValidationError([{"type": "json_invalid", "loc": ("body", error.pos), "ctx": {"error": error.msg}}]) from error
    except (ValueError, RecursionError) as error:
        raise HTTPException(400) from error
