"""Bulk loads: the histories of many users, and their profiles, into a store.

Invariant: a load can be repeated, and goes on after one that was interrupted. An event's id follows from what it is, so a store takes it
once, and a write that fails because the store is away is tried again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np

from drafting.alignment.data.columns import Column, row_values
from drafting.alignment.data.details import KIND
from drafting.preparation.events import Events
from drafting.prompts.user_state import Value
from server.errors import HistoryDamaged
from server.histories.base import Event, HistoryStore
from server.offline.bulk_checks import attributes_of
from server.schemas.event_id import event_id_of
from server.try_again import HistoryUnavailable

_T = TypeVar("_T")
_Kept = TypeVar("_Kept")
_EVENTS_AT_ONCE = 5000
_PROFILES_AT_ONCE = 500
_PATIENCE_SECONDS = 60.0


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


def histories_of(events: Events, most: int, event_ids: Column | None = None) -> Iterator[tuple[str, list[Event]]]:
    """Each user and their newest `most` events, oldest first.

    Args:
        event_ids: ids that the events have already; by default an id follows from item, time and kind.
    """
    order = np.lexsort((events.times, events.users))
    ends = np.cumsum(np.bincount(events.users, minlength=len(events.user_names)))
    attributes = attributes_of(events)
    start = 0
    for user, end in enumerate(ends.tolist()):
        rows = order[max(start, end - most) : end].tolist()
        start = end
        if rows:
            yield events.user_names[user], [_event(events, row, attributes, event_ids) for row in rows]


def _event(events: Events, row: int, attributes: Mapping[str, Column], event_ids: Column | None) -> Event:
    """The event of a row; `attributes` and `event_ids` are the columns that say more of it."""
    item, when, kinds = events.item_names[events.items[row]], float(events.times[row]), events.details.get(KIND)
    said = None if kinds is None else kinds[row]
    kind = None if said is None else str(said)
    value = None if events.values is None or np.isnan(events.values[row]) else float(events.values[row])
    given = None if event_ids is None else event_ids[row]
    event_id = event_id_of(item, when, kind) if given is None else _id_text(given)
    return Event(item, when, event_id, kind, value, row_values(attributes, row))  # type: ignore[arg-type]


def _id_text(said: Value) -> str:
    """An id as clients send it: pandas makes floats of a column of whole numbers with a gap."""
    return str(int(said)) if isinstance(said, float) and said.is_integer() else str(said)


async def load_histories(store: HistoryStore, histories: Iterator[tuple[str, list[Event]]], on_events: Callable[[int], object]) -> Imported:
    """Store histories, some users at a time.

    Raises:
        HistoryUnavailable: the store has been away for a minute; what was sent before is stored.
    """
    done = Imported()
    while batch := _batch(histories):
        sent = sum(map(len, batch.values()))
        try:
            stored = await _patiently(partial(store.append_many, batch))
            damaged: tuple[str, ...] = ()
        except HistoryDamaged:
            counts, damaged = await _one_by_one(store.append, batch)
            stored = sum(counts)
        users = done.users + len(batch) - len(damaged)
        done = replace(done, users=users, sent=done.sent + sent, stored=done.stored + stored, damaged=done.damaged + damaged)
        on_events(sent)
    return done


async def load_profiles(
    store: HistoryStore, profiles: Mapping[str, Mapping[str, Value]], on_profiles: Callable[[int], object]
) -> tuple[int, tuple[str, ...]]:
    """Store profiles in place of those that are there; return their number, and the users of whom nothing was stored, as in `Imported`.

    Raises:
        HistoryUnavailable: as `load_histories`.
    """
    stored = 0
    damaged: list[str] = []
    remaining = iter(profiles.items())
    while batch := dict(islice(remaining, _PROFILES_AT_ONCE)):
        unreadable: tuple[str, ...] = ()
        try:
            await _patiently(partial(store.put_profiles, batch))
        except HistoryDamaged:
            _, unreadable = await _one_by_one(store.put_profile, batch)
        stored += len(batch) - len(unreadable)
        damaged += unreadable
        on_profiles(len(batch))
    return stored, tuple(damaged)


def _batch(histories: Iterator[tuple[str, list[Event]]]) -> dict[str, list[Event]]:
    batch: dict[str, list[Event]] = {}
    count = 0
    for user, events in histories:
        batch[user] = events
        count += len(events)
        if count >= _EVENTS_AT_ONCE:
            break
    return batch


async def _one_by_one(store_one: Callable[[str, _Kept], Awaitable[_T]], batch: Mapping[str, _Kept]) -> tuple[list[_T], tuple[str, ...]]:
    """Store what a batch with a damaged user has; what the store answered, and the users of whom nothing was stored."""
    answers, damaged = [], []
    for user, kept in batch.items():
        try:
            answers.append(await _patiently(partial(store_one, user, kept)))
        except HistoryDamaged:
            damaged.append(user)
    return answers, tuple(damaged)


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
