"""Typed clients of the API: `AtspeedClient`, and `AsyncAtspeedClient` for asyncio, with the exceptions that they raise.

Invariant: what serves imports nothing of this room.
"""

from server.client.async_client import AsyncAtspeedClient
from server.client.client import AtspeedClient
from server.client.errors import (
    AtspeedError,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    Denied,
    NotFound,
    Overloaded,
    ProblemError,
    Refused,
    ServerFault,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
)
from server.client.histories import Appended
from server.client.lists import Recommendation
from server.client.origin import Retries

__all__ = [
    "Appended",
    "AsyncAtspeedClient",
    "AtspeedClient",
    "AtspeedError",
    "Conflict",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Denied",
    "NotFound",
    "Overloaded",
    "ProblemError",
    "Recommendation",
    "Refused",
    "Retries",
    "ServerFault",
    "TimedOut",
    "Unavailable",
    "UnexpectedAnswer",
]
