"""`Operation`: one call of the API as data, which says nothing of how it is sent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum, auto
from json import JSONEncoder
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import numpy as np
from pydantic import BaseModel

from server.client.upload import Upload

Answer = TypeVar("Answer")
# Catalogs are checked and built before they are answered.
LONG_PATIENCE_SECONDS = 3600.0


class Repeat(Enum):
    """When a call that has failed may be sent again.

    Attributes:
        ALWAYS: doing it twice is doing it once.
        IF_NOT_BEGUN: only if the server has certainly not begun with it.
        NEVER: its failure is what the caller wants to know.
    """

    ALWAYS = auto()
    IF_NOT_BEGUN = auto()
    NEVER = auto()


@dataclass(frozen=True, slots=True)
class Operation(Generic[Answer]):
    """One call.

    Attributes:
        route: method and path as on the OpenAPI page, such as `GET /v1/users/{user_id}/history`.
        read: makes the answer of the body of a response that says success; raises ValueError for a body that is none of this API.
        repeat: when it may be sent again.
        names: what stands in the path's places, by the name of the place.
        query: query parameters; None for those that are left out.
        body: the JSON of the request by the seconds that are left for it (None: no deadline), an upload, or None without a body.
        user: whose request it is, for gateways that send each user to a replica of their own.
        timed: True if the server takes a timeout for it, so that the client's deadline holds for it.
        deadline: seconds for the whole call, in place of the client's.
        patience: seconds that each answer may take where there is no deadline, in place of the client's.
    """

    route: str
    read: Callable[[bytes], Answer]
    repeat: Repeat = Repeat.ALWAYS
    names: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, float | str | None] = field(default_factory=dict)
    body: Callable[[float | None], Any] | Upload | None = None
    user: str | None = None
    timed: bool = False
    deadline: float | None = None
    patience: float | None = None

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.route.partition(" ")[0]

    @property
    def target(self) -> str:
        """Path and query, percent-encoded."""
        path = self.route.partition(" ")[2].format_map({name: _segment(value) for name, value in self.names.items()})
        query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in self.query.items() if value is not None)
        return f"{path}?{query}" if query else path


def as_json(body: Any) -> bytes:
    """The JSON of a request: of models what was set, of NumPy's arrays and numbers their values, of times RFC 3339 text.

    Raises:
        TypeError, ValueError: something in it has no JSON, such as a set, NaN, or half of a surrogate pair.
    """
    return _ENCODER.encode(body).encode()


def _segment(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"An id or a name in a path is a text, not {name!r:.60}.")
    # Clients and proxies resolve segments of dots, which would lead to another path.
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise TypeError(f"A {type(value).__name__} has no JSON: {value!r:.60}")


_ENCODER = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)


def nothing(content: bytes) -> None:
    """The answer of an operation that has none: whatever has more to say is not the server."""
    if content:
        raise ValueError("it has content, and should have none")
