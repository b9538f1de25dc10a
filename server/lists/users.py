"""From what a request brings, and what is stored, to the `UserState` that its prompt is made of.

Invariant: an item that a request names must be in the catalog; one that a stored history names may have left it, and is passed over. What
a request brings takes the place of what is stored: the profile as a whole, a list of behaviours that of its kind.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from drafting.catalog.catalog import Catalog
from drafting.prompts.user_state import UserEvent, UserState
from server.catalogs.store import known_items
from server.histories import Event, StoredUser
from server.schemas.given import GivenEvent, GivenUser, item_ids

# Before the kind, among the names of what a prompt reads.
_BEHAVIOURS = "behaviours."


@dataclass(frozen=True)
class KnownUser:
    """What is known of the user of one request.

    Attributes:
        state: what a prompt is made of; of each list the newest entries only, as many as a prompt may read.
        met: catalog indices of all items in all lists.
    """

    state: UserState
    met: list[int]


def unread(given: GivenUser, reads: Collection[str]) -> list[str]:
    """What a request brings and a prompt does not read, in the words of a sentence; `reads` is that of `PromptBuilder`."""
    kinds = sorted(name.removeprefix(_BEHAVIOURS) for name in reads if name.startswith(_BEHAVIOURS))
    parts = {
        f"behaviours other than {' and '.join(kinds)}" if kinds else "behaviours": any(
            entries and kind not in kinds for kind, entries in given.behaviours.items()
        ),
        "profile": bool(given.profile) and "profile" not in reads,
        "context": bool(given.context) and "context" not in reads,
    }
    return [part for part, is_unread in parts.items() if is_unread]


def suffices(given: GivenUser, reads: Collection[str]) -> bool:
    """True if a prompt may be made of what a request brings beside its history; `reads` is that of `PromptBuilder`."""
    lists = any(entries and f"{_BEHAVIOURS}{kind}" in reads for kind, entries in given.behaviours.items())
    return lists or (bool(given.context) and "context" in reads)


def known_user(
    catalog: Catalog, given: GivenUser, most: int | None, stored: StoredUser | None = None, user_id: str | None = None
) -> KnownUser:
    """The user of a request.

    Args:
        most: number of the newest entries of a list that a prompt may read; None for all.
        stored: what is stored of the user, for a request that names one.

    Raises:
        UnknownItem: the request names an item that the catalog does not have.
    """
    if stored is None:
        entries: Sequence[str | GivenEvent | Event] = given.history or ()
        items = known_items(catalog, item_ids(given.history or ()), "history")
    else:
        places = catalog.indices_of([event.item_id for event in stored.events]).tolist()
        entries = [event for event, place in zip(stored.events, places, strict=True) if place >= 0]
        items = [place for place in places if place >= 0]
    met = list(items)
    behaviours: dict[str, list[UserEvent]] = {}
    for kind, told in given.behaviours.items():
        indices = known_items(catalog, item_ids(told), "behaviours")
        behaviours[kind] = _events(indices, told, most, kind)
        met += indices
    profile = given.profile if given.profile is not None else (stored.profile if stored is not None else None)
    return KnownUser(UserState(_events(items, entries, most), behaviours, profile or {}, given.context, user_id), met)


def _events(
    items: Sequence[int], entries: Sequence[str | GivenEvent | Event], most: int | None, kind: str | None = None
) -> list[UserEvent]:
    newest = slice(0 if most is None else max(0, len(items) - most), None)
    return [_event(item, entry, kind) for item, entry in zip(items[newest], entries[newest], strict=True)]


def _event(item: int, entry: str | GivenEvent | Event, kind: str | None) -> UserEvent:
    if isinstance(entry, str):
        return UserEvent(item, kind)
    return UserEvent(item, entry.kind or kind, entry.value, entry.timestamp, entry.attributes)
