"""What clients tell of users: events with kind, value and attributes, profiles, contexts, lists of behaviours.

Invariant: whatever passes can be stored, told to any client and written into a prompt: texts are UTF-8, numbers are finite and the same in
every JSON parser, nothing is nested deeper than a list. Sentences about it say no values but ids of items and times, because this is what
is known of a person.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainValidator, StringConstraints, TypeAdapter, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from drafting.alignment.data.fact_limits import (
    MAX_FACTS,
    MAX_FACTS_BYTES,
    MAX_NAME,
    MAX_TEXT,
    MAX_VALUES,
    unusable_facts,
    unusable_names,
)
from drafting.beam.rule import LARGEST_JSON_INTEGER
from server.schemas.body import Body, Id, Several
from server.schemas.timestamp import EXAMPLE, Timestamp

MAX_HISTORY = 10_000
MAX_BEHAVIOURS = 20
MAX_ATTRIBUTES, MAX_ATTRIBUTES_BYTES = 16, 1024

# Fields whose values are known of a person.
PRIVATE = frozenset({"profile", "context", "behaviours", "kind", "value", "attributes"})
FACTS_ERROR = "facts"


def _checked(most: int, most_bytes: int, *, lists: bool) -> Callable[[Any], Any]:
    """A check of an object of scalars, and of lists of them if `lists`."""

    def check(facts: Any) -> Any:
        if isinstance(facts, dict) and (reason := unusable_facts(facts, most, most_bytes, lists=lists)):
            raise _refusal(reason)
        return facts

    return check


def _refusal(reason: str) -> PydanticCustomError:
    return PydanticCustomError(FACTS_ERROR, "{reason}", {"reason": reason})


def _object_schema(most: int, *, lists: bool) -> WithJsonSchema:
    number = {"type": "number", "minimum": -LARGEST_JSON_INTEGER, "maximum": LARGEST_JSON_INTEGER}
    scalar = {"anyOf": [{"type": "string", "maxLength": MAX_TEXT}, number, {"type": "boolean"}]}
    value = {"anyOf": [*scalar["anyOf"], {"type": "array", "items": scalar, "maxItems": MAX_VALUES}]} if lists else scalar
    names = {"minLength": 1, "maxLength": MAX_NAME}
    return WithJsonSchema({"type": "object", "maxProperties": most, "propertyNames": names, "additionalProperties": value})


Attributes = Annotated[
    dict[str, Any],
    BeforeValidator(_checked(MAX_ATTRIBUTES, MAX_ATTRIBUTES_BYTES, lists=False)),
    _object_schema(MAX_ATTRIBUTES, lists=False),
]
Facts = Annotated[dict[str, Any], BeforeValidator(_checked(MAX_FACTS, MAX_FACTS_BYTES, lists=True)), _object_schema(MAX_FACTS, lists=True)]

EventKind = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]


# Defaults are made by factories: pydantic takes a deep copy of any other, for every event of a long list.
class GivenEvent(Body):
    """Something that a user did with an item."""

    item_id: Id
    timestamp: Timestamp | None = Field(
        default=None, description=f"Seconds since 1970, or RFC 3339 text with an offset from UTC, such as `{EXAMPLE}`."
    )
    kind: EventKind | None = Field(default=None, description="What the user did, such as `watch` or `buy`.")
    value: float | None = Field(
        default=None,
        ge=-LARGEST_JSON_INTEGER,
        le=LARGEST_JSON_INTEGER,
        allow_inf_nan=False,
        description="How much of it: a rating, seconds watched.",
    )
    attributes: Attributes = Field(
        default_factory=dict,
        description="What else is known of the event, by name: short texts, numbers and booleans, "
        f"together at most {MAX_ATTRIBUTES_BYTES:,} bytes of JSON.",
    )


_IDS: TypeAdapter[list[str]] = TypeAdapter(Annotated[list[Id], Field(max_length=MAX_HISTORY, fail_fast=True, strict=True)])
_EVENTS: TypeAdapter[list[GivenEvent]] = TypeAdapter(Several[GivenEvent])


def _entries(entries: Any) -> list[str] | list[GivenEvent]:
    """Item ids stay as they are, which is quick; where one entry is an object, all become events."""
    if not isinstance(entries, list) or len(entries) > MAX_HISTORY or dict not in map(type, entries):
        return _IDS.validate_python(entries)
    return _EVENTS.validate_python([{"item_id": entry} if isinstance(entry, str) else entry for entry in entries])


def _named(behaviours: Any) -> Any:
    if isinstance(behaviours, dict):
        if len(behaviours) > MAX_BEHAVIOURS:
            raise _refusal(f"has {len(behaviours):,} names, and {MAX_BEHAVIOURS} are possible")
        if reason := unusable_names(behaviours):
            raise _refusal(reason)
    return behaviours


def item_ids(entries: Sequence[str] | Sequence[GivenEvent]) -> list[str]:
    """The items of a list of behaviours."""
    return [entry if isinstance(entry, str) else entry.item_id for entry in entries]


# A union in the validation would answer a number with a sentence for each of its members.
EventList = Annotated[
    list[str] | list[GivenEvent],
    PlainValidator(_entries, json_schema_input_type=Annotated[list[Id | GivenEvent], Field(max_length=MAX_HISTORY)]),
]
Behaviours = Annotated[dict[EventKind, EventList], Field(max_length=MAX_BEHAVIOURS), BeforeValidator(_named)]


class GivenUser(Body):
    """What a request itself brings of its user."""

    history: EventList | None = Field(default=None, description="Item ids or events, oldest first; give this or `user_id`.")
    behaviours: Behaviours = Field(
        default_factory=dict,
        description="Further lists of item ids or events by kind, oldest first. Each takes the place of the stored events of that kind. "
        f"With the history they may have {MAX_HISTORY:,} entries.",
    )
    profile: Facts | None = Field(
        default=None,
        description="What is known of the user, by name: short texts, numbers, booleans and lists of these, together at most "
        f"{MAX_FACTS_BYTES:,} bytes of JSON. It takes the place of the stored profile as a whole.",
    )
    context: Facts = Field(
        default_factory=dict, description="What is known of this request, such as a query or the device, as in `profile`."
    )

    @model_validator(mode="after")
    def _check_entries(self) -> Self:
        if (entries := len(self.history or ()) + sum(map(len, self.behaviours.values()))) > MAX_HISTORY:
            raise ValueError(f"History and behaviours may have {MAX_HISTORY:,} entries together, got {entries:,}.")
        return self


class AskedUser(GivenUser):
    """The user whom a request is about: a stored one, or what the request brings."""

    user_id: Id | None = Field(default=None, description="The user; give this or `history`.")

    @model_validator(mode="after")
    def _check_user(self) -> Self:
        if self.user_id is not None and self.history is not None:
            raise ValueError("Give either user_id or history, not both.")
        # Some prompts are made of these alone; those that are not refuse to be empty.
        if self.user_id is None and self.history is None and not self.behaviours and not self.context:
            raise ValueError("Give a user_id, or a history of item ids.")
        return self
