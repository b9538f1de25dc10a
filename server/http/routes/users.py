"""`/v1/users/{user_id}`: append to, read and forget a stored history."""

import time
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from starlette.convertors import StringConvertor, register_url_convertor

from drafting.beam.rule import LARGEST_JSON_INTEGER
from server.catalogs.store import known_items
from server.errors import InvalidRequest, UserNotFound
from server.histories import Event
from server.http.problems import documented
from server.schemas.users import EventsAnswer, EventsBody, HistoryAnswer
from server.services import Services

UserPath = Annotated[
    str,
    Path(
        min_length=1,
        max_length=512,
        description="Any text that names the user, percent-encoded (a slash as `%2F`). Avoid ids such as `.`, `../a` and `a//b`: clients "
        "and proxies may rewrite such a path on its way.",
    ),
]


class UserConvertor(StringConvertor):
    """Matches any text. Paths are decoded before they are routed, so a slash in a user id looks like any other.

    No path can be read in two ways: each method has one ending of its own here, and the last one in the path is it.
    """

    regex = "(?s:.*)"


register_url_convertor("user", UserConvertor())


# Clocks of clients are off by so much at most; an event beyond it is a mistake.
MOST_AHEAD_SECONDS = 86_400


def user_routes(services: Services) -> APIRouter:
    """The router of stored histories."""
    router = APIRouter(prefix="/v1/users/{user_id:user}", tags=["users"])
    catalogs, histories, metrics = services.catalogs, services.histories, services.metrics

    @router.post("/events", summary="Append events to a user's history", responses=documented(409, 415, 503))
    async def append(user_id: UserPath, body: EventsBody) -> EventsAnswer:
        """Idempotent by `event_id`; the history is in the order of the timestamps, not of arrival."""
        known_items(catalogs.active.catalog, [event.item_id for event in body.events], "an event")
        now = time.time()
        events = [Event(event.item_id, now if event.timestamp is None else event.timestamp, event.event_id) for event in body.events]
        _check_future(events, now)
        with metrics.history_operation("append"):
            stored = await histories.append(user_id, events)
        return EventsAnswer(user_id=user_id, received=len(events), stored=stored)

    @router.get("/history", summary="Read a user's history", responses=documented(404, 409, 422, 503, answer=HistoryAnswer))
    async def read(
        user_id: UserPath,
        limit: Annotated[int | None, Query(ge=1, le=LARGEST_JSON_INTEGER, description="Only so many of the newest events.")] = None,
    ) -> Response:
        """Oldest event first."""
        with metrics.history_operation("read"):
            events = await histories.read(user_id, limit)
        if not events:
            raise UserNotFound(user_id)
        return Response(orjson.dumps({"user_id": user_id, "events": [line(event) for event in events]}), media_type="application/json")

    # Before the next route, which also matches its paths.
    @router.delete("/history", summary="Forget a user's history", status_code=204, responses=documented(404, 422, 503))
    async def forget_history(user_id: UserPath, request: Request) -> Response:
        """The same as to forget the user, as nothing else is stored."""
        # In the path as it came, a slash of a user id is `%2F`.
        return await forget(user_id if request.scope["raw_path"].endswith(b"/history") else f"{user_id}/history")

    @router.delete("", summary="Forget a user", status_code=204, responses=documented(404, 422, 503))
    async def forget(user_id: UserPath) -> Response:
        """Delete everything that is stored for the user."""
        with metrics.history_operation("delete"):
            known = await histories.delete(user_id)
        if not known:
            raise UserNotFound(user_id)
        return Response(status_code=204)

    def line(event: Event) -> dict[str, Any]:
        catalog = catalogs.active.catalog
        index = catalog.index_of(event.item_id)
        optional = {"event_id": event.event_id, "title": None if index is None else catalog.title(index)}
        given = {name: value for name, value in optional.items() if value is not None}
        return {"item_id": event.item_id, "timestamp": event.timestamp} | given

    return router


def _check_future(events: Sequence[Event], now: float) -> None:
    for place, event in enumerate(events):
        if event.timestamp > now + MOST_AHEAD_SECONDS:
            raise InvalidRequest(
                f"events[{place}].timestamp is more than a day in the future: it is {event.timestamp:.0f}, "
                f"and the server's clock says {now:.0f}."
            )
