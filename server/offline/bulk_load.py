"""Bulk loads: the histories of many users, and their profiles, into a store.

Invariant: a load can be repeated, and goes on after one that was interrupted. An event's id follows from what it is, so a store takes it
once, and a write that fails because the store is away is tried again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from drafting.alignment.data.columns import Column, row_values
from drafting.alignment.data.details import ATTRIBUTES, KIND
from drafting.errors import InteractionError
from drafting.preparation.events import Events
from drafting.prompts.user_state import Value
from server.errors import HistoryDamaged
from server.histories.base import Event, HistoryStore
from server.schemas.event_id import event_id_of
from server.schemas.given import Attributes, EventKind, Facts
from server.schemas.timestamp import LAST_SECOND
from server.try_again import HistoryUnavailable

_T = TypeVar("_T")
_EVENTS_AT_ONCE = 5000
_PROFILES_AT_ONCE = 500
_PATIENCE_SECONDS = 60.0
_LONGEST_ID = 512
_attributes: TypeAdapter[dict[str, Value]] = TypeAdapter(Attributes)
_facts: TypeAdapter[dict[str, Value]] = TypeAdapter(Facts)
_kind: TypeAdapter[str] = TypeAdapter(EventKind)


@dataclass(frozen=True)
class Imported:
    """What a load has done.

    Attributes:
        sent: events that were sent, at most the newest that the store keeps of each user.
        stored: those of them that were not there yet.
        damaged: users whose stored histories can't be read, of whom nothing was stored.
    """

    users: int = 0
    sent: int = 0
    stored: int = 0
    damaged: tuple[str, ...] = ()


def check_events(events: Events) -> None:
    """Refuse what the API would refuse, before anything is stored.

    Raises:
        InteractionError: a name is too long, or a number has no place in a history.
    """
    for role, names in (("user", events.user_names), ("item", events.item_names)):
        long = next((name for name in names if len(name) > _LONGEST_ID), None)
        if long is not None:
            raise InteractionError(f"The {role} {long[:40]!r}… has {len(long):,} characters, and {_LONGEST_ID} are possible.")
    if (events.times < 0).any() or (events.times > LAST_SECOND).any():
        raise InteractionError("Histories have times from 1970 to the year 9999: some of the data lie outside. Is --time-unit right?")
    if KIND in events.details:
        for kind in events.details[KIND].values:
            _checked(_kind, kind, "A kind of events")
    for name, column in events.details.items():
        for value in column.values if name.startswith(ATTRIBUTES) else ():
            _checked(_attributes, {name.removeprefix(ATTRIBUTES): value}, "An attribute of events")


def histories_of(events: Events, most: int, event_ids: Column | None = None) -> Iterator[tuple[str, list[Event]]]:
    """Each user and their newest `most` events, oldest first.

    Args:
        event_ids: ids that the events have already; by default an id follows from item, time and kind.
    """
    order = np.lexsort((events.times, events.users))
    ends = np.cumsum(np.bincount(events.users, minlength=len(events.user_names)))
    kinds = events.details.get(KIND)
    attributes = {name.removeprefix(ATTRIBUTES): column for name, column in events.details.items() if name.startswith(ATTRIBUTES)}
    start = 0
    for user, end in enumerate(ends.tolist()):
        rows = order[max(start, end - most) : end].tolist()
        start = end
        if not rows:
            continue
        found = []
        for row in rows:
            item, when = events.item_names[events.items[row]], float(events.times[row])
            kind = None if kinds is None else kinds[row]
            value = None if events.values is None or np.isnan(events.values[row]) else float(events.values[row])
            known = row_values(attributes, row) if attributes else {}
            said = None if event_ids is None else event_ids[row]
            event_id = event_id_of(item, when, None if kind is None else str(kind)) if said is None else str(said)
            found.append(Event(item, when, event_id, None if kind is None else str(kind), value, known))  # type: ignore[arg-type]
        yield events.user_names[user], found


async def load_histories(store: HistoryStore, histories: Iterator[tuple[str, list[Event]]], on_events: Callable[[int], None]) -> Imported:
    """Store histories, some users at a time.

    Raises:
        HistoryUnavailable: the store has been away for a minute; what was sent before is stored.
    """
    done = Imported()
    while batch := _batch(histories):
        sent = sum(map(len, batch.values()))
        try:
            stored = await _patiently(lambda batch=batch: store.append_many(batch))  # type: ignore[misc]
            damaged: tuple[str, ...] = ()
        except HistoryDamaged:
            stored, damaged = await _one_by_one(store, batch)
        users = done.users + len(batch) - len(damaged)
        done = replace(done, users=users, sent=done.sent + sent, stored=done.stored + stored, damaged=done.damaged + damaged)
        on_events(sent)
    return done


async def load_profiles(store: HistoryStore, profiles: Mapping[str, Mapping[str, Value]], on_profiles: Callable[[int], None]) -> int:
    """Store profiles in place of those that are there; return their number.

    Raises:
        InteractionError: a profile is one that the API would refuse; none was stored.
        HistoryUnavailable: as `load_histories`.
    """
    for profile in profiles.values():
        _checked(_facts, profile, "A profile")
    remaining = iter(profiles.items())
    while batch := dict(islice(remaining, _PROFILES_AT_ONCE)):
        await _patiently(lambda batch=batch: store.put_profiles(batch))  # type: ignore[misc]
        on_profiles(len(batch))
    return len(profiles)


def _batch(histories: Iterator[tuple[str, list[Event]]]) -> dict[str, list[Event]]:
    batch: dict[str, list[Event]] = {}
    count = 0
    for user, events in histories:
        batch[user] = events
        count += len(events)
        if count >= _EVENTS_AT_ONCE:
            break
    return batch


async def _one_by_one(store: HistoryStore, batch: Mapping[str, list[Event]]) -> tuple[int, tuple[str, ...]]:
    """Store what a batch with a damaged history has; the number of events, and the users of whom nothing was stored."""
    stored, damaged = 0, []
    for user, events in batch.items():
        try:
            stored += await _patiently(lambda user=user, events=events: store.append(user, events))  # type: ignore[misc]
        except HistoryDamaged:
            damaged.append(user)
    return stored, tuple(damaged)


async def _patiently(call: Callable[[], Awaitable[_T]]) -> _T:
    """The result of a call that is repeated while the store is away: what may have been stored is not stored twice."""
    deadline, wait = time.monotonic() + _PATIENCE_SECONDS, 0.1
    while True:
        try:
            return await call()
        except HistoryUnavailable:
            if time.monotonic() + wait > deadline:
                raise
        await asyncio.sleep(wait)
        wait = min(2 * wait, 5.0)


def _checked(adapter: TypeAdapter[_T], value: object, subject: str) -> None:
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        raise InteractionError(f"{subject} can't be stored: it {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from error
