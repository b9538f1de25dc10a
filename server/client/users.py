"""Calls for what is stored of users, each written once, as in `server.client.operations`."""

from collections.abc import Mapping, Sequence

from server.client.lists import Facts
from server.client.operation import Operation, Repeat, nothing
from server.schemas.users import EventBody, EventsAnswer, HistoryAnswer, ProfileAnswer


def append_events(user_id: str, events: Sequence[EventBody | Facts]) -> Operation[EventsAnswer]:
    """Append up to 1,000 events to a user's history.

    If all events have an `event_id`, the call is tried again after a failure, and none is stored twice; the answer's `stored` then leaves
    out what an earlier try has stored. Without ids it is tried again only if the server has not begun.

    Args:
        events: dictionaries with `item_id` and what else is known, or models.
    """
    return Operation(
        "POST /v1/users/{user_id}/events",
        EventsAnswer.model_validate_json,
        Repeat.ALWAYS if all(map(_has_id, events)) else Repeat.IF_NOT_BEGUN,
        names={"user_id": user_id},
        body=lambda _: {"events": events},
        user=user_id,
    )


def history(user_id: str, limit: int | None = None) -> Operation[HistoryAnswer]:
    """A user's stored history, oldest event first; with `limit` only so many of the newest events."""
    return Operation(
        "GET /v1/users/{user_id}/history",
        HistoryAnswer.model_validate_json,
        names={"user_id": user_id},
        query={"limit": limit},
        user=user_id,
    )


def delete_events(
    user_id: str, *, event_id: str | None = None, item_id: str | None = None, timestamp: float | None = None
) -> Operation[None]:
    """Delete the event of an id, or those with an item (at a time, in seconds since 1970)."""
    return Operation(
        "DELETE /v1/users/{user_id}/events",
        nothing,
        names={"user_id": user_id},
        query={"event_id": event_id, "item_id": item_id, "timestamp": timestamp},
        user=user_id,
    )


def put_profile(user_id: str, profile: Facts) -> Operation[None]:
    """Store what is known of a user, in place of the profile that is there."""
    route = "PUT /v1/users/{user_id}/profile"
    return Operation(route, nothing, names={"user_id": user_id}, body=lambda _: profile, user=user_id)


def profile(user_id: str) -> Operation[ProfileAnswer]:
    """A user's stored profile."""
    route = "GET /v1/users/{user_id}/profile"
    return Operation(route, ProfileAnswer.model_validate_json, names={"user_id": user_id}, user=user_id)


def forget_profile(user_id: str) -> Operation[None]:
    """Delete a user's profile; the history stays."""
    return Operation("DELETE /v1/users/{user_id}/profile", nothing, names={"user_id": user_id}, user=user_id)


def forget_history(user_id: str) -> Operation[None]:
    """The same as `forget_user`: the profile goes as well."""
    return Operation("DELETE /v1/users/{user_id}/history", nothing, names={"user_id": user_id}, user=user_id)


def forget_user(user_id: str) -> Operation[None]:
    """Delete all that is stored of a user."""
    return Operation("DELETE /v1/users/{user_id}", nothing, names={"user_id": user_id}, user=user_id)


def _has_id(event: EventBody | Facts) -> bool:
    """Whether an event has an id; what is no event has none, and the server says what it is."""
    if isinstance(event, EventBody):
        return event.event_id is not None
    return isinstance(event, Mapping) and event.get("event_id") is not None
