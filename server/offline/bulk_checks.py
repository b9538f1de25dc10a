"""Checks of events and profiles that are stored in bulk: they pass if the API would take them, with any catalog, at any time.

Invariant: all is checked before anything is stored, by the API's own schemas. What has a size is checked as arrays, so that millions of
events take no Python object each.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from drafting.alignment.data.columns import MISSING, Column, row_values
from drafting.alignment.data.details import ATTRIBUTES, KIND
from drafting.beam.rule import LARGEST_JSON_INTEGER
from drafting.errors import InteractionError
from drafting.preparation.events import Events
from drafting.prompts.user_state import Value
from server.schemas.given import MAX_ATTRIBUTES, MAX_ATTRIBUTES_BYTES, MAX_NAME, Attributes, Facts
from server.schemas.timestamp import LAST_SECOND

_T = TypeVar("_T")
_LONGEST_ID = 512
_attributes: TypeAdapter[dict[str, Value]] = TypeAdapter(Attributes)
_facts: TypeAdapter[dict[str, Value]] = TypeAdapter(Facts)


def check_events(events: Events, event_ids: Column | None = None) -> None:
    """Refuse events that the API would refuse.

    Args:
        event_ids: ids that the events have already.

    Raises:
        InteractionError: a name is too long, a number has no place in a history, or an event has too many attributes or too large ones.
    """
    _check_lengths("user", events.user_names)
    _check_lengths("item", events.item_names)
    if event_ids is not None:
        _check_lengths("event id", map(str, event_ids.values))
    if (events.times < 0).any() or (events.times > LAST_SECOND).any():
        raise InteractionError("Histories have times from 1970 to the year 9999: some of the data lie outside. Is --time-unit right?")
    # NaN is no value.
    if events.values is not None and (np.abs(events.values) > LARGEST_JSON_INTEGER).any():
        raise InteractionError("A value of events can't be stored: it is not finite, or beyond what every JSON parser reads alike (2^53).")
    if KIND in events.details:
        _check_lengths("kind", map(str, events.details[KIND].values), MAX_NAME)
    _check_attributes(attributes_of(events))


def check_profiles(profiles: Mapping[str, Mapping[str, Value]]) -> None:
    """Refuse profiles that the API would refuse.

    Args:
        profiles: by user.

    Raises:
        InteractionError: a user's name is too long, or a profile holds what has no place in one.
    """
    _check_lengths("user", profiles)
    for profile in profiles.values():
        _checked(_facts, profile, "A profile")


def attributes_of(events: Events) -> dict[str, Column]:
    """The columns of attributes by the names that the store has for them."""
    return {name.removeprefix(ATTRIBUTES): column for name, column in events.details.items() if name.startswith(ATTRIBUTES)}


def _check_lengths(role: str, names: Iterable[str], longest: int = _LONGEST_ID) -> None:
    for name in names:
        if not 0 < len(name) <= longest:
            raise InteractionError(f"The {role} {name[:40]!r}… has {len(name):,} characters, and from 1 to {longest} are possible.")


def _check_attributes(attributes: Mapping[str, Column]) -> None:
    for name, column in attributes.items():
        for value in column.values:
            _checked(_attributes, {name: value}, "An attribute of events")
    counts, sizes = _sizes(list(attributes.items()))
    large = (counts > MAX_ATTRIBUTES) | (sizes > MAX_ATTRIBUTES_BYTES)
    if large.any():
        _checked(_attributes, row_values(attributes, int(np.argmax(large))), "The whole of an event's attributes")


def _sizes(attributes: Sequence[tuple[str, Column]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many attributes each event has, and their bytes as one object of JSON, `[events]` each."""
    events = len(attributes[0][1].codes) if attributes else 0
    counts, sizes = np.zeros(events, np.int64), np.full(events, len("{}"), np.int64)
    for name, column in attributes:
        own = [len(msgspec.json.encode({name: value})) - len("{}") for value in column.values]
        # The last place is that of -1.
        sizes += np.array([*own, 0], np.int64)[column.codes]
        counts += column.codes != MISSING
    # Commas between them.
    return counts, sizes + np.maximum(counts - 1, 0)


def _checked(adapter: TypeAdapter[_T], value: object, subject: str) -> None:
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        raise InteractionError(f"{subject} can't be stored: it {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from error
