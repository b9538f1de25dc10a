"""A user's events: what is stored, one more, one less."""

from uuid import uuid4

from nicegui import ui

from server.client import AsyncAtspeedClient, AtspeedError, NotFound
from server.console.elements import card, main_button, show_error, tag, tell
from server.console.lists.question import Question
from server.console.lists.user_form import UserForm
from server.console.operate.versions import when
from server.console.visits import Visits
from server.schemas.users import StoredEvent

SHOWN = 20


class Events:
    """The newest events of one user."""

    def __init__(self, client: AsyncAtspeedClient, visits: Visits) -> None:
        self._client, self._user_id = client, ""
        with card("Events of a user"):
            with tag("div", "", "line"):
                UserForm(visits, Question(), self._choose)
            self._shown = tag("div", "", "stack")

    async def _choose(self, user_id: str) -> None:
        self._user_id = user_id
        await self._load()

    async def _load(self) -> None:
        events: list[StoredEvent] = []
        self._shown.clear()
        with self._shown:
            try:
                events = (await self._client.history(self._user_id, SHOWN)).events
            except NotFound:
                tag("p", "Nothing is stored of this user.", "soft")
            except AtspeedError as error:
                show_error(str(error))
                return
            with tag("form", "", "line").on("submit.prevent", self._append):
                self._item = ui.input("Item id").props("outlined dense").style("flex: 2 1 8rem")
                self._kind = ui.input("Kind").props("outlined dense").style("flex: 1 1 6rem")
                main_button("Add event")
            with tag("ul", "", "items plain"):
                for event in reversed(events):
                    self._line(event)

    def _line(self, event: StoredEvent) -> None:
        with tag("li"), tag("div", "", "what"):
            tag("span", event.title or event.item_id, "title")
            if event.kind:
                tag("span", event.kind, "badge still")
            tag("div", f"{event.item_id} · {when(event.timestamp)}", "soft mono")

    async def _append(self) -> None:
        event = {"item_id": (self._item.value or "").strip(), "event_id": f"console-{uuid4().hex}"}
        if kind := (self._kind.value or "").strip():
            event["kind"] = kind
        if await tell(self._client.append_events(self._user_id, [event]), "The event is stored."):
            await self._load()
