"""From the work of a request to its response, for as long as a client waits for it.

A connection reports its own end, through the `Caller` that its requests carry, because waiting for ASGI's message about it would take a
task for each request.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import orjson
from fastapi import Request, Response

from server.http.problems import ClientGone

# Where the state of a request has its `Caller`.
CALLER = "atspeed.caller"


class Caller:
    """Who waits at the other end of a connection for the answers to its requests."""

    def __init__(self) -> None:
        self.gone = False
        self.answering: set[asyncio.Task[Any]] = set()

    def leave(self) -> None:
        """Note that nobody waits any more, and end the work on all answers."""
        self.gone = True
        for task in self.answering:
            task.cancel()


async def answered(request: Request, work: Coroutine[Any, Any, dict[str, Any]]) -> Response:
    """Do the work of a request, and drop it when the client hangs up; the response with the answer that it makes.

    The answer is encoded as it is: checking what we have just made against its own model would take longer than making it.

    Raises:
        ClientGone: the client hung up first.
    """
    # An app that is called without a connection, as by some tests, hears of no end.
    caller: Caller = request.scope.get("state", {}).get(CALLER) or Caller()
    answering = asyncio.current_task()
    assert answering is not None
    caller.answering.add(answering)
    try:
        if caller.gone:
            # It left before its request was looked at.
            work.close()
            raise ClientGone
        return Response(orjson.dumps(await work), media_type="application/json")
    except asyncio.CancelledError as error:
        # The task may have been cancelled for another reason as well, which must not be lost.
        if not caller.gone or answering.uncancel():
            raise
        raise ClientGone from error
    finally:
        caller.answering.discard(answering)
