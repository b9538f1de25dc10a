"""Histories of many users from an iterator: what both faces share of `append_histories`.

Invariant: every event is sent with an id, so that calls can be tried again, and a load whose events have timestamps can be repeated as a
whole. The parts of one user's history are sent one after the other, oldest first as they come, because the server keeps what arrived last.
A user's events are read before the next user is taken: an iterator such as that of `itertools.groupby` has them no longer afterwards.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any
from uuid import uuid4

from server.client.operation import Operation, as_json
from server.client.users import append_events
from server.schemas.event_id import event_id_of
from server.schemas.users import MAX_EVENTS, EventBody, EventsAnswer

AT_ONCE = 8

# An event, or the id of its item.
BulkEvent = EventBody | Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class Appended:
    """Progress of a load.

    Attributes:
        users: users whose histories have been sent.
        events: events that have been sent.
        stored: those of them that were not there yet.
    """

    users: int = 0
    events: int = 0
    stored: int = 0


OnAppended = Callable[[Appended], None]


class HistoryLoad:
    """Hands the users of an iterator to several workers, threads or tasks, and counts what they have done."""

    def __init__(self, histories: Iterable[tuple[str, Iterable[BulkEvent]]], at_once: int, on_progress: OnAppended | None) -> None:
        """Raises ValueError if there are to be no workers (`at_once` of them): nothing would be sent."""
        if at_once < 1:
            raise ValueError(f"at_once must be at least 1, got {at_once}.")
        self._histories = iter(histories)
        self._on_progress = on_progress
        self._lock = Lock()
        self._closed = False
        self.done = Appended()

    def __iter__(self) -> Iterator[Iterator[Operation[EventsAnswer]]]:
        """The users that no other worker has, each as calls to be made one after the other, each counted by `note`."""
        while True:
            with self._lock:
                found = None if self._closed else next(self._histories, None)
                if found is None:
                    return
                user_id, events = _parts_of(found)
            yield self._calls(user_id, events)
            with self._lock:
                self._count(replace(self.done, users=self.done.users + 1))

    def note(self, answer: EventsAnswer) -> None:
        """Count what a call has done."""
        with self._lock:
            events, stored = self.done.events + answer.received, self.done.stored + answer.stored
            self._count(replace(self.done, events=events, stored=stored))

    def close(self) -> None:
        """Hand out no more users: one of the workers has failed, or there are none."""
        with self._lock:
            self._closed = True

    def _count(self, done: Appended) -> None:
        self.done = done
        if self._on_progress is not None:
            self._on_progress(done)

    @staticmethod
    def _calls(user_id: str, events: Sequence[BulkEvent]) -> Iterator[Operation[EventsAnswer]]:
        for start in range(0, len(events), MAX_EVENTS):
            yield append_events(user_id, [_with_id(event) for event in events[start : start + MAX_EVENTS]])


def _parts_of(history: tuple[str, Iterable[BulkEvent]]) -> tuple[str, list[BulkEvent]]:
    """A user's id and all events of theirs.

    Raises:
        TypeError: it is a text, as the keys of a dictionary are, or a dictionary; or it has one event in place of several. What these are
            made of is no items.
    """
    if isinstance(history, str | Mapping) or isinstance(history[1], str | Mapping):
        raise TypeError(f"A history is a user's id and a list of their events, as `dict.items()` gives them, and not {history!r:.60}.")
    return history[0], list(history[1])


def _with_id(event: BulkEvent) -> EventBody:
    """The event with an id; one without a timestamp gets an id of chance, as it is another event each time.

    Raises:
        ValidationError: it is no event.
    """
    body = EventBody.model_validate_json(as_json({"item_id": event} if isinstance(event, str) else event))
    if body.event_id is not None:
        return body
    known = uuid4().hex if body.timestamp is None else event_id_of(body.item_id, body.timestamp, body.kind)
    return body.model_copy(update={"event_id": known})
