"""HTTP schemas of users: their histories and profiles."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator
from pydantic.config import JsonDict

from server.schemas.body import Body, Id, Several, examples
from server.schemas.given import Facts, GivenEvent
from server.schemas.timestamp import EXAMPLE, Timestamp

MAX_EVENTS = 1000


class EventBody(GivenEvent):
    """Something that a user did with an item, to be stored."""

    timestamp: Timestamp | None = Field(
        default=None,
        description=f"Seconds since 1970, or RFC 3339 text with an offset from UTC, such as `{EXAMPLE}`; now by default. At most a day "
        "ahead of the server's clock.",
    )
    event_id: Id | None = Field(default=None, description="An event with an id that the user's history already has is not stored again.")


_EVENTS_BODIES: list[JsonDict] = [
    {"events": [{"item_id": "50", "timestamp": 1700000000, "event_id": "click-1"}]},
    {"item_id": "50"},
    {"item_id": "50", "timestamp": "2026-11-28T23:15:00+01:00"},
    {"item_id": "50", "kind": "watch", "value": 5400, "attributes": {"device": "tv", "done": True}},
]


def _or_one_event(schema: JsonDict) -> None:
    """Say in the schema of `EventsBody` that a single event may be the body itself."""
    several: JsonDict = {name: schema.pop(name) for name in ("type", "properties", "required", "additionalProperties")}
    one: JsonDict = {"$ref": "#/components/schemas/EventBody"}
    schema["anyOf"] = [several, one]
    schema["examples"] = [*_EVENTS_BODIES]


class EventsBody(Body):
    """Events of one user; a single event may also be the body itself."""

    model_config = ConfigDict(json_schema_extra=_or_one_event)

    events: Several[EventBody] = Field(max_length=MAX_EVENTS)

    @model_validator(mode="before")
    @classmethod
    def _wrap(cls, body: Any) -> Any:
        return {"events": [body]} if isinstance(body, dict) and "events" not in body and "item_id" in body else body


class EventsAnswer(BaseModel):
    """The result of storing events."""

    model_config = examples({"user_id": "42", "received": 2, "stored": 1})

    user_id: str
    received: int
    stored: int = Field(description="Events that are kept and are no repeats.")


class StoredEvent(BaseModel):
    """One event of a stored history."""

    item_id: str
    timestamp: float = Field(description="Seconds since 1970.")
    event_id: str | None = Field(default=None, description="Left out for events without one.")
    kind: str | None = Field(default=None, description="Left out for events without one.")
    value: float | None = Field(default=None, description="Left out for events without one.")
    attributes: dict[str, Any] | None = Field(default=None, description="Left out for events without any.")
    title: str | None = Field(default=None, description="Left out for items without one.")


class HistoryAnswer(BaseModel):
    """A stored history, oldest event first."""

    user_id: str
    events: list[StoredEvent]


class ProfileBody(RootModel[Facts]):
    """What is known of a user, by name: short texts, numbers, booleans and lists of these."""

    model_config = examples({"country": "DE", "age": 34, "subscriber": True, "genres": ["drama", "war"]}, {})


class ProfileAnswer(BaseModel):
    """A stored profile."""

    model_config = examples({"user_id": "42", "profile": {"country": "DE", "age": 34, "genres": ["drama", "war"]}})

    user_id: str
    profile: dict[str, Any]
