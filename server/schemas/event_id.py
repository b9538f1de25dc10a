"""Ids for events that have none, so that storing them again changes nothing."""

from hashlib import blake2b


def event_id_of(item_id: str, timestamp: float, kind: str | None) -> str:
    """The id that follows from what an event is: whoever loads the same event gives it the same id."""
    return blake2b(f"{timestamp!r}\n{kind}\n{item_id}".encode(), digest_size=8).hexdigest()
