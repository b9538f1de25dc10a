"""The events that users sent, and which of them the server acknowledged.

Invariant: an event is written down before it is sent, so whatever a history shows and the ledger does not know was invented; it counts as
acknowledged from the answer on, and then it must be in every history that is asked for later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class SentEvent:
    """One event.

    Attributes:
        acknowledged: whether the server said that it has it.
    """

    item_id: str
    timestamp: float
    acknowledged: bool = False


@dataclass
class EventLedger:
    """All events, by user and id.

    Attributes:
        users: of each user the events by id, as they were sent.
        forgotten: users whose deletion was acknowledged.
    """

    users: dict[str, dict[str, SentEvent]] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)

    @property
    def acknowledged(self) -> int:
        """How many events the server has acknowledged."""
        return sum(event.acknowledged for events in self.users.values() for event in events.values())

    def send(self, user: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Write down what is about to be sent."""
        known = self.users.setdefault(user, {})
        for event in events:
            known.setdefault(event["event_id"], SentEvent(event["item_id"], event["timestamp"]))

    def acknowledge(self, user: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Note that the server has these."""
        for event in events:
            self.users[user][event["event_id"]].acknowledged = True

    def forget(self, user: str) -> None:
        """Note that the server said it has deleted a user."""
        self.users.pop(user, None)
        self.forgotten.add(user)

    def due(self, user: str) -> frozenset[str]:
        """Ids of the events that a history asked for from now on must show."""
        return frozenset(name for name, event in self.users.get(user, {}).items() if event.acknowledged)

    def complaint(self, user: str, history: Sequence[Mapping[str, Any]]) -> str | None:
        """A sentence about what is wrong with the events that a history shows; None if nothing is."""
        sent, times = self.users.get(user, {}), [event["timestamp"] for event in history]
        names = [event.get("event_id") for event in history]
        if user in self.forgotten and history:
            return f"The history of {user} shows {len(history)} events after it was deleted."
        if times != sorted(times):
            return f"The history of {user} is not in the order of its timestamps."
        if len(set(names)) < len(names):
            return f"The history of {user} shows an event twice."
        for name, event in zip(names, history, strict=True):
            known = None if name is None else sent.get(name)
            if known is None or (known.item_id, known.timestamp) != (event["item_id"], event["timestamp"]):
                return f"The history of {user} shows an event {name} that was never sent so."
        return None


def lost_events(due: frozenset[str], history: Sequence[Mapping[str, Any]]) -> int:
    """How many of the due events a history lacks."""
    return len(due - {event.get("event_id") for event in history})
