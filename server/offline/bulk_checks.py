"""Checks of events and profiles that are stored in bulk: they pass if the API would take them, with any catalog, at any time.

Invariant: all is checked before anything is stored, by the API's own schemas. What has a size is checked as arrays, so that millions of
events take no Python object each.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from drafting.alignment.data.columns import MISSING, Column, row_values
from drafting.alignment.data.details import ATTRIBUTES, KIND
from drafting.alignment.data.fact_limits import MAX_NAME
from drafting.array_types import BoolArray
from drafting.beam.rule import LARGEST_JSON_INTEGER
from drafting.errors import InteractionError, quoted
from drafting.preparation.events import Events
from drafting.prompts.user_state import Value
from server.schemas.given import MAX_ATTRIBUTES, MAX_ATTRIBUTES_BYTES, Attributes, Facts
from server.schemas.timestamp import LAST_SECOND

_LONGEST_ID = 512
_attributes: TypeAdapter[dict[str, Value]] = TypeAdapter(Attributes)
_facts: TypeAdapter[dict[str, Value]] = TypeAdapter(Facts)


def check_events(events: Events, event_ids: Column | None = None) -> None:
    """Refuse events that the API would refuse.

    Args:
        event_ids: ids that the events have already.

    Raises:
        InteractionError: a name is too long, an id of an event is none, a number has no place in a history, or an event has too many
            attributes or too large ones.
    """
    _check_lengths("user", events.user_names)
    _check_lengths("item", events.item_names)
    if event_ids is not None:
        _check_ids(event_ids.values)
    if (outside := (events.times < 0) | (events.times > LAST_SECOND)).any():
        raise InteractionError(
            f"Histories have times from 1970 to the year 9999: {np.count_nonzero(outside):,} of the data lie outside, first "
            f"{_first(events, outside)} ({events.times[outside][0]:.0f} s). Is --time-unit right?"
        )
    # NaN is no value.
    if events.values is not None and (beyond := np.abs(events.values) > LARGEST_JSON_INTEGER).any():
        raise InteractionError(
            f"The value of {_first(events, beyond)} can't be stored: it is not finite, or beyond what every JSON parser reads alike (2^53)."
        )
    if KIND in events.details:
        _check_lengths("kind", map(str, events.details[KIND].values), MAX_NAME)
    _check_attributes(events, attributes_of(events))


def check_profiles(profiles: Mapping[str, Mapping[str, Value]]) -> None:
    """Refuse profiles that the API would refuse.

    Args:
        profiles: profile of each user, by the user's id.

    Raises:
        InteractionError: a user's name is too long, or a profile holds what has no place in one.
    """
    _check_lengths("user", profiles)
    for user, profile in profiles.items():
        if reason := _refusal(_facts, profile):
            raise InteractionError(f"The profile of user {quoted(user)} can't be stored: it {reason}.")


def attributes_of(events: Events) -> dict[str, Column]:
    """The columns of attributes by the names that the store has for them."""
    return {name.removeprefix(ATTRIBUTES): column for name, column in events.details.items() if name.startswith(ATTRIBUTES)}


def _check_lengths(role: str, names: Iterable[str], longest: int = _LONGEST_ID) -> None:
    for name in names:
        if not 0 < len(name) <= longest:
            raise InteractionError(f"The {role} {quoted(name)} has {len(name):,} characters, and from 1 to {longest} are possible.")


def _check_ids(values: Sequence[Value]) -> None:
    for value in values:
        is_whole = isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_JSON_INTEGER
        if isinstance(value, bool) or not (is_whole or isinstance(value, str | int)):
            raise InteractionError(
                f"The event id {value!r} is neither a text nor a whole number up to 2^53. If `atspeed prepare --keep` made numbers of "
                "texts, import its source."
            )
    _check_lengths("event id", map(str, values))


def _check_attributes(events: Events, attributes: Mapping[str, Column]) -> None:
    for name, column in attributes.items():
        for place, value in enumerate(column.values):
            if reason := _refusal(_attributes, {name: value}):
                raise InteractionError(f"An attribute of {_first(events, column.codes == place)} can't be stored: it {reason}.")
    counts, sizes = _sizes(list(attributes.items()))
    large = (counts > MAX_ATTRIBUTES) | (sizes > MAX_ATTRIBUTES_BYTES)
    if large.any() and (reason := _refusal(_attributes, row_values(attributes, int(np.argmax(large))))):
        raise InteractionError(f"The whole of the attributes of {_first(events, large)} can't be stored: it {reason}.")


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


def _refusal(adapter: TypeAdapter[dict[str, Value]], value: object) -> str | None:
    """Why a value is refused, as the rest of a sentence that begins with it; None if it is taken."""
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return None


def _first(events: Events, wrong: BoolArray) -> str:
    """The first of some events, as a sentence names it: among millions nobody finds one that has no name."""
    row = int(np.argmax(wrong))
    user, item = events.user_names[events.users[row]], events.item_names[events.items[row]]
    return f"the event of user {quoted(user)} with item {quoted(item)}"
