"""`Question`: the request for a list that a person puts together on a page, and its form in the address of the page.

Invariant: what is shown as curl and Python, what the address says and what is sent are one body.
"""

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from server.client.lists import Scoring
from server.console.typed import json_of
from server.schemas.given import GivenEvent
from server.schemas.recommendations import RecommendationRequest
from server.schemas.users import StoredEvent

# Beyond it, servers and browsers refuse addresses.
_LONGEST_ADDRESS = 6000


@dataclass
class Question:
    """A request in the making.

    Attributes:
        user_id: id of the user whose stored history it is made for, or was before it was changed; empty until there is one.
        events: the history, oldest first.
        profile: the user's stored profile, for lists with a changed history.
        changed: True if the history is no longer the stored one, so that it is sent with the request.
        options: the other fields of the body.
    """

    user_id: str = ""
    events: list[StoredEvent] = field(default_factory=list)
    profile: dict[str, Any] | None = None
    changed: bool = False
    options: dict[str, Any] = field(default_factory=lambda: {"k": 10})

    @classmethod
    def of_address(cls, ask: str, user: str = "") -> "Question":
        """The question that an address names by its two parameters; one without options if it names none."""
        try:
            body = json_of(ask) if ask else {}
            asked = RecommendationRequest.model_validate(body)
        except ValueError:
            return cls(user)
        events = [_event(entry) for entry in asked.history or ()]
        options = {name: value for name, value in body.items() if name not in ("user_id", "history", "profile") and value is not None}
        return cls(asked.user_id or user, events, asked.profile, asked.history is not None, options)

    @property
    def is_ready(self) -> bool:
        """Whether there is someone to make a list for."""
        return bool(self.events if self.changed else self.user_id)

    @property
    def body(self) -> dict[str, Any]:
        """The body of the request."""
        whom: dict[str, Any] = {"user_id": self.user_id}
        if self.changed:
            whom = {"history": [_entry(event) for event in self.events]} | ({} if self.profile is None else {"profile": self.profile})
        return whom | {name: value for name, value in self.options.items() if _is_said(value)}

    @property
    def scoring(self) -> dict[str, Any]:
        """The part of the body that a request for scores takes, too, by which they are on the scale of the list's."""
        return {name: value for name, value in self.body.items() if name in Scoring.__annotations__}

    def address(self, path: str) -> str:
        """The page at this path with this question; without it if it is too long for an address."""
        asked = quote(json.dumps(self.body, separators=(",", ":")), safe=":,")
        short = self.is_ready and len(asked) < _LONGEST_ADDRESS
        return f"{path}?{f'ask={asked}&' if short else ''}user={quote(self.user_id)}"

    def forget(self, place: int) -> None:
        """Leave out an event of the history."""
        del self.events[place]
        self.changed = True

    def add(self, item_id: str, title: str | None) -> None:
        """Put an item at the end of the history, as of now."""
        self.events.append(StoredEvent(item_id=item_id, timestamp=round(time.time()), title=title))
        self.changed = True

    def curl(self, url: str, *, keyed: bool) -> str:
        """The request as a command; the key of a server that asks for one is taken from the environment, as the Python client does."""
        body = json.dumps(self.body, ensure_ascii=False)
        key = ' -H "Authorization: Bearer $ATSPEED_KEY"' if keyed else ""
        return f"curl -s {url}/v1/recommendations{key} -H 'Content-Type: application/json' -d {shlex.quote(body)}"

    def python(self, url: str) -> str:
        """The request in Python."""
        arguments = "".join(f"    {name}={value!r},\n" for name, value in self.body.items())
        return f"from server.client import AtspeedClient\n\nanswer = AtspeedClient({url!r}).recommend(\n{arguments})\n"


def _is_said(value: Any) -> bool:
    """Whether an option says anything: 0 does, an empty field and a box without its tick do not."""
    return value is not None and value is not False and value not in ("", {}, [])


def _event(entry: str | GivenEvent) -> StoredEvent:
    """An entry of a request's history as a stored event, at time 0 where the request does not say when."""
    known = {"item_id": entry} if isinstance(entry, str) else entry.model_dump(exclude_defaults=True)
    return StoredEvent.model_validate({"timestamp": 0.0} | known)


def _entry(event: StoredEvent) -> Any:
    """An event as a request brings it."""
    known = event.model_dump(exclude_none=True, exclude={"title", "event_id"})
    if not known["timestamp"]:
        del known["timestamp"]
    return known if len(known) > 1 else event.item_id


def changes(before: Sequence[str], now: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """How a list differs from the one before: what to say of each item of it, and the items that have gone."""
    places = {item: place for place, item in enumerate(before)}
    said = {}
    for place, item in enumerate(now):
        if item not in places:
            said[item] = "new"
        elif (moved := places[item] - place) != 0:
            said[item] = f"▲ {moved}" if moved > 0 else f"▼ {-moved}"
    return said, [item for item in before if item not in set(now)]
