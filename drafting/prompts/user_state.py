"""What is known of a user when their prompt is built: the carrier between those who know it and the form of the prompt.

Invariant: items are catalog indices, events are oldest first, and a value that is not known is absent, never None, from profile, context
and attributes; so a template's `default` speaks of all of them alike.

It imports no array library, because the command line has a name from here and must start at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from drafting.array_types import IntArray

# The events of a user that servers keep, the newest ones, unless they are told otherwise.
STORED_EVENTS = 1000

Scalar = str | float | int | bool
Value = Scalar | Sequence[Scalar]


# Attributes of an event that has none; shared, as there are many.
_NOTHING: dict[str, Scalar] = {}


class UserEvent(NamedTuple):
    """One item that a user met.

    Attributes:
        item: index in the catalog.
        kind: of what the user did, such as "watch" or "buy"; None if no kind was given.
        value: a rating, seconds watched, or whatever else was measured of it.
        time: seconds since 1970.
        attributes: what else was said of this event, by name.
    """

    item: int
    kind: str | None = None
    value: float | None = None
    time: float | None = None
    attributes: Mapping[str, Scalar] = _NOTHING


@dataclass(frozen=True)
class UserState:
    """What is known of a user when their prompt is built.

    Attributes:
        events: all events, oldest first, of all kinds.
        behaviours: lists that the request itself brings, oldest first, by kind; each takes the place of the events of that kind.
        profile: what is known of the user for good, by name.
        context: what the request brings, such as a query, by name.
        user_id: None if nobody said who it is.
    """

    events: Sequence[UserEvent]
    behaviours: Mapping[str, Sequence[UserEvent]] = field(default_factory=dict)
    profile: Mapping[str, Value] = field(default_factory=dict)
    context: Mapping[str, Value] = field(default_factory=dict)
    user_id: str | None = None

    @classmethod
    def of_items(cls, items: "Sequence[int] | IntArray") -> "UserState":
        """A user of whom nothing is known but their items, oldest first."""
        return cls([UserEvent(item) for item in map(int, items)])
