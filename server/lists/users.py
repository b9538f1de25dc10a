"""From what a request brings, and what is stored, to the `UserState` that its prompt is made of.

Invariant: an item that the catalog does not have is passed over; if the request itself names it, the answer can say which it was. What a
request brings replaces what is stored: a profile as a whole, a list of behaviours those of its kind.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from drafting.catalog.catalog import Catalog
from drafting.errors import quoted
from drafting.prompts.user_state import UserEvent, UserState
from server.catalogs.served import found_items, known_items
from server.histories import Event, StoredUser
from server.schemas.given import GivenEvent, GivenUser, item_ids

_Entry = TypeVar("_Entry")

# Before the kind, among the names of what a prompt reads.
_BEHAVIOURS = "behaviours."


@dataclass(frozen=True)
class KnownUser:
    """What is known of the user of one request.

    Attributes:
        state: what a prompt is made of; of each list the newest entries only, as many as a prompt may read.
        history: catalog indices of all items of the history, oldest first, also those beyond what a prompt may read.
        met: catalog indices of all items in all lists.
        unknown: ids that the request names and the catalog does not have, by the field that names them; no field without any.
    """

    state: UserState
    history: list[int]
    met: list[int]
    unknown: Mapping[str, list[str]] = field(default_factory=dict)


def unread(given: GivenUser, reads: Collection[str]) -> list[str]:
    """The parts of a request that the prompt does not read, in words; `reads` is that of `PromptBuilder`."""
    kinds = sorted(name.removeprefix(_BEHAVIOURS) for name in reads if name.startswith(_BEHAVIOURS))
    parts = {
        f"behaviours other than {' and '.join(kinds)}" if kinds else "behaviours": any(
            entries and kind not in kinds for kind, entries in given.behaviours.items()
        ),
        "profile": bool(given.profile) and "profile" not in reads,
        "context": bool(given.context) and "context" not in reads,
    }
    return [part for part, is_unread in parts.items() if is_unread]


def told_unknown(unknown: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A sentence for each field of a request that names items which the catalog does not have, and which are passed over."""
    for name, missing in unknown.items():
        if len(missing) == 1:
            yield f"The catalog has no item {quoted(missing[0])}, which {name} names: it is passed over."
        else:
            yield f"The catalog does not have {len(missing):,} items that {name} names, such as {quoted(missing[0])}: they are passed over."


def user_notes(given: GivenUser, user: KnownUser, reads: Collection[str], most: int) -> Iterator[str]:
    """Sentences about what a request says of its user that does not reach the prompt.

    Args:
        reads: what the prompt reads, as `PromptBuilder.reads_of` tells it.
        most: the most items of a history that a prompt has.
    """
    if given.history is not None and len(given.history) > most:
        yield f"The model reads at most the newest {most} of the {len(given.history)} items in the history."
    yield from told_unknown(user.unknown)
    if names := unread(given, reads):
        yield f"The model's prompt does not read {', '.join(names)}."


def check_given(given: GivenUser, catalog: Catalog) -> None:
    """Refuse a request whose user has met an item that the catalog does not have. Raises UnknownItem."""
    known_items(catalog, item_ids(given.history or ()), "history")
    for entries in given.behaviours.values():
        known_items(catalog, item_ids(entries), "behaviours")


def none_known(unknown: Mapping[str, Sequence[str]]) -> str:
    """The sentence about a request of whose items the catalog has none."""
    name, missing = next(iter(unknown.items()))
    if len(missing) == 1:
        return f"The catalog has no item {quoted(missing[0])}, which {name} names."
    return f"The catalog has none of the {len(missing):,} items that {name} names, such as {quoted(missing[0])}."


def suffices(given: GivenUser | UserState, reads: Collection[str]) -> bool:
    """True if a prompt may be made of what a request brings beside its history; `reads` is that of `PromptBuilder`."""
    lists = any(entries and f"{_BEHAVIOURS}{kind}" in reads for kind, entries in given.behaviours.items())
    return lists or (bool(given.context) and "context" in reads)


def known_user(
    catalog: Catalog,
    given: GivenUser,
    most: int,
    kinds: Mapping[str, int] | None = None,
    stored: StoredUser | None = None,
    user_id: str | None = None,
) -> KnownUser:
    """The user of a request.

    Args:
        most: number of the newest entries of each list that a prompt may read.
        kinds: for each kind that a prompt lists apart, the number of its newest entries, wherever they lie in the history.
        stored: what is stored of the user, for a request that names one.
    """
    unknown: dict[str, list[str]] = {}
    entries: Sequence[str | GivenEvent | Event]
    if stored is None:
        entries, items, missing = _in_catalog(catalog, given.history or (), item_ids(given.history or ()))
        if missing:
            unknown["history"] = missing
    else:
        entries, items, _ = _in_catalog(catalog, stored.events, [event.item_id for event in stored.events])
    met = list(items)
    behaviours: dict[str, list[UserEvent]] = {}
    apart = dict(kinds or {})
    for kind, brought in given.behaviours.items():
        told: Sequence[str | GivenEvent]
        told, indices, missing = _in_catalog(catalog, brought, item_ids(brought))
        if missing:
            unknown.setdefault("behaviours", []).extend(missing)
        newest = range(max(0, len(told) - max(most, apart.pop(kind, 0))), len(told))
        behaviours[kind] = [_event(indices[place], told[place], kind) for place in newest]
        met += indices
    profile = given.profile if given.profile is not None else (stored.profile if stored is not None else None)
    events = [_event(items[place], entries[place]) for place in _readable(entries, most, apart)]
    return KnownUser(UserState(events, behaviours, profile or {}, given.context, user_id), items, met, unknown)


def _in_catalog(catalog: Catalog, entries: Sequence[_Entry], ids: Sequence[str]) -> tuple[Sequence[_Entry], list[int], list[str]]:
    """The entries whose items the catalog has, with their indices; and the ids that it does not have."""
    items, missing = found_items(catalog, ids)
    if not missing:
        return entries, items, missing
    there = [place for place, item in enumerate(items) if item >= 0]
    return [entries[place] for place in there], [items[place] for place in there], missing


def _readable(entries: Sequence[str | GivenEvent | Event], most: int, kinds: dict[str, int]) -> list[int]:
    """The places of the newest entries, and of the newest of each kind wherever they lie, oldest first."""
    found: list[int] = []
    left = sum(kinds.values())
    if not left:
        return list(range(max(0, len(entries) - most), len(entries)))
    for place in range(len(entries) - 1, -1, -1):
        is_newest = len(entries) - place <= most
        if not is_newest and not left:
            break
        entry = entries[place]
        kind = None if isinstance(entry, str) else entry.kind
        is_wanted = kind is not None and kinds.get(kind, 0) > 0
        if kind is not None and is_wanted:
            kinds[kind] -= 1
            left -= 1
        if is_newest or is_wanted:
            found.append(place)
    return found[::-1]


def _event(item: int, entry: str | GivenEvent | Event, kind: str | None = None) -> UserEvent:
    if isinstance(entry, str):
        return UserEvent(item, kind)
    return UserEvent(item, entry.kind or kind, entry.value, entry.timestamp, entry.attributes)
