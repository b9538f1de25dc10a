"""From the work of a request to its response, for as long as somebody waits for it."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import orjson
from fastapi import Request, Response

from server.http.problems import ClientGone


async def answered(request: Request, work: Coroutine[Any, Any, dict[str, Any]]) -> Response:
    """Do the work of a request, and drop it when the client hangs up; the response with the answer that it makes.

    The answer is encoded as it is: checking what we have just made against its own model would take longer than making it.

    Raises:
        ClientGone: the client hung up first.
    """
    answering = asyncio.current_task()
    assert answering is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        # The body has been read, so all that can still come is the end of the connection.
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        answering.cancel()

    watching = asyncio.create_task(watch())
    try:
        return Response(orjson.dumps(await work), media_type="application/json")
    except asyncio.CancelledError as error:
        # The task may have been cancelled for another reason as well, which must not be lost.
        if not gone or answering.uncancel():
            raise
        raise ClientGone from error
    finally:
        watching.cancel()
