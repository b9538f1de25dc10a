"""The body of a request that a route reads itself, piece by piece.

Invariant: a client that is gone before its body has ended is a client's mistake, told and counted as one, and not a fault of the server.
"""

from collections.abc import AsyncIterator

from fastapi import Request
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
