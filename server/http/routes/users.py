"""`/v1/users/{user_id}`: append to and read a stored history, put and read a profile, forget a user."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from starlette.convertors import StringConvertor, register_url_convertor

from drafting.beam.rule import LARGEST_JSON_INTEGER
from server.catalogs.served import known_items
from server.errors import EventNotFound, InvalidRequest, ProfileNotFound, UserNotFound
from server.histories import Event, EventChoice
from server.http.problems import documented
from server.http.strict_route import needs, strict_route
from server.keys.key import Scope
from server.schemas.body import Id
from server.schemas.timestamp import LAST_SECOND
from server.schemas.users import EventBody, EventsAnswer, EventsBody, HistoryAnswer, ProfileAnswer, ProfileBody
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

    No path can be read in two ways: each route of a method has an ending of its own, and the last one in the path is it.
    """

    regex = "(?s:.*)"


register_url_convertor("user", UserConvertor())


# Clocks of clients are off by so much at most; an event beyond it is a mistake.
MOST_AHEAD_SECONDS = 86_400


def user_routes(services: Services) -> APIRouter:
    """The router of what is stored of users."""
    router = APIRouter(prefix="/v1/users/{user_id:user}", tags=["users"], route_class=strict_route(services.gate))
    catalogs, histories, metrics = services.catalogs, services.histories, services.metrics

    @router.post("/events", summary="Append events to a user's history", responses=documented(409, 415, 503))
    @needs(Scope.EVENTS)
    async def append(user_id: UserPath, body: EventsBody) -> EventsAnswer:
        """Idempotent by `event_id`; the history is in the order of the timestamps, not of arrival."""
        known_items(catalogs.active.catalog, [event.item_id for event in body.events], "an event")
        now = time.time()
        events = [_event(event, now) for event in body.events]
        _check_future(events, now)
        with metrics.history_operation("append"):
            stored = await histories.append(user_id, events)
        return EventsAnswer(user_id=user_id, received=len(events), stored=stored)

    @router.get("/history", summary="Read a user's history", responses=documented(404, 409, 422, 503, answer=HistoryAnswer))
    @needs(Scope.USERS)
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

    @router.put("/profile", summary="Store a user's profile", status_code=204, response_class=Response, responses=documented(409, 415, 503))
    @needs(Scope.USERS)
    async def put_profile(user_id: UserPath, body: ProfileBody) -> None:
        """In place of the one that is there, as a whole. A list for the user is made with it, where the model's prompt reads it."""
        with metrics.history_operation("put"):
            await histories.put_profile(user_id, body.root)

    @router.get("/profile", summary="Read a user's profile", responses=documented(404, 409, 422, 503, answer=ProfileAnswer))
    @needs(Scope.USERS)
    async def read_profile(user_id: UserPath) -> Response:
        with metrics.history_operation("read"):
            user = await histories.read_user(user_id, 0)
        if user.profile is None:
            raise ProfileNotFound(user_id)
        return Response(orjson.dumps({"user_id": user_id, "profile": user.profile}), media_type="application/json")

    # These three before the next route, which also matches their paths. In the path as it came, a slash of a user id is `%2F`.
    @router.delete("/profile", summary="Forget a user's profile", status_code=204, responses=documented(404, 409, 422, 503))
    @needs(Scope.USERS)
    async def forget_profile(user_id: UserPath, request: Request) -> Response:
        """The history stays."""
        if not request.scope["raw_path"].endswith(b"/profile"):
            return await forget(f"{user_id}/profile")
        with forgetting(user_id):
            known = await histories.delete_profile(user_id)
        if not known:
            raise ProfileNotFound(user_id)
        return Response(status_code=204)

    @router.delete("/events", summary="Delete events of a user", status_code=204, responses=documented(404, 409, 422, 503))
    @needs(Scope.USERS)
    async def delete_events(
        user_id: UserPath,
        request: Request,
        event_id: Annotated[Id | None, Query(description="The event with this id.")] = None,
        item_id: Annotated[Id | None, Query(description="Events with this item.")] = None,
        timestamp: Annotated[
            float | None, Query(ge=0, le=LAST_SECOND, allow_inf_nan=False, description="Events of this time, in seconds since 1970.")
        ] = None,
    ) -> Response:
        """Of the events that `GET …/history` shows, those of which all is true that is named: an `event_id`, or an `item_id`, or an
        `item_id` and a `timestamp`. Their ids are remembered while any event is left: one that is sent again late is not back."""
        if not request.scope["raw_path"].endswith(b"/events"):
            return await forget(f"{user_id}/events")
        if event_id is None and item_id is None:
            raise InvalidRequest("Name the events to delete: give their event_id, or their item_id, and their timestamp if need be.")
        with forgetting(user_id):
            deleted = await histories.delete_events(user_id, EventChoice(event_id, item_id, timestamp))
        if not deleted:
            raise EventNotFound(user_id)
        return Response(status_code=204)

    @router.delete("/history", summary="Forget a user", status_code=204, responses=documented(404, 422, 503))
    @needs(Scope.USERS)
    async def forget_history(user_id: UserPath, request: Request) -> Response:
        """The same as `DELETE /v1/users/{user_id}`: the profile goes as well."""
        return await forget(user_id if request.scope["raw_path"].endswith(b"/history") else f"{user_id}/history")

    @router.delete("", summary="Forget a user", status_code=204, responses=documented(404, 422, 503))
    @needs(Scope.USERS)
    async def forget(user_id: UserPath) -> Response:
        """Delete everything that is stored for the user: events, their ids, and the profile. What is sent later is that of a new user."""
        with forgetting(user_id):
            known = await histories.delete(user_id)
        if not known:
            raise UserNotFound(user_id)
        return Response(status_code=204)

    @contextmanager
    def forgetting(user_id: str) -> Iterator[None]:
        """Delete something of a user. What was made of it goes as well, also where the store does not say that it is deleted: it may be."""
        try:
            with metrics.history_operation("delete"):
                yield
        finally:
            services.prompts.forget(user_id)
            services.engine.forget(user_id)

    def line(event: Event) -> dict[str, Any]:
        catalog = catalogs.active.catalog
        index = catalog.index_of(event.item_id)
        title = None if index is None else catalog.title(index)
        told = {"kind": event.kind, "value": event.value, "attributes": event.attributes or None}
        optional = {"event_id": event.event_id, **told, "title": title}
        given = {name: value for name, value in optional.items() if value is not None}
        return {"item_id": event.item_id, "timestamp": event.timestamp} | given

    return router


def _event(body: EventBody, now: float) -> Event:
    time_of_it = now if body.timestamp is None else body.timestamp
    return Event(body.item_id, time_of_it, body.event_id, body.kind, body.value, body.attributes)


def _check_future(events: Sequence[Event], now: float) -> None:
    for place, event in enumerate(events):
        if event.timestamp > now + MOST_AHEAD_SECONDS:
            raise InvalidRequest(
                f"events[{place}].timestamp is more than a day in the future: it is {event.timestamp:.0f}, "
                f"and the server's clock says {now:.0f}."
            )
