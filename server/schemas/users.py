"""HTTP schemas of users and their histories."""

from typing import Any

from pydantic import BaseModel, Field, model_validator

from server.schemas.recommendations import Body, Id, Several, examples

MAX_EVENTS = 1000
LAST_SECOND = 253_402_300_799  # the end of the year 9999; a timestamp in milliseconds is far beyond it


class EventBody(Body):
    """Something that a user did with an item."""

    item_id: Id
    timestamp: float | None = Field(
        default=None,
        ge=0,
        le=LAST_SECOND,
        allow_inf_nan=False,
        description="Seconds since 1970, at most a day ahead of the server's clock; now by default.",
    )
    event_id: Id | None = Field(default=None, description="An event with an id that the user's history already has is not stored again.")


class EventsBody(Body):
    """Events of one user; a single event may also be the body itself."""

    model_config = examples({"events": [{"item_id": "50", "timestamp": 1700000000, "event_id": "click-1"}]}, {"item_id": "50"})

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
    title: str | None = Field(default=None, description="Left out for items without one.")


class HistoryAnswer(BaseModel):
    """A stored history, oldest event first."""

    user_id: str
    events: list[StoredEvent]
