"""A user's events: what is stored, one more, one less."""

from functools import partial
from uuid import uuid4

from nicegui import ui

from server.client import AsyncAtspeedClient, AtspeedError, NotFound
from server.console.elements import ask_first, card, icon_button, main_button, show_error, tag, tell
from server.console.lists.user_form import UserForm
from server.console.newest import Newest
from server.console.operate.versions import when
from server.console.visits import Visits
from server.schemas.users import StoredEvent

SHOWN = 20


class Events:
    """The newest events of one user."""

    def __init__(self, client: AsyncAtspeedClient, visits: Visits) -> None:
        self._client, self._visits, self._user_id = client, visits, ""
        self._histories = Newest()
        with card("Events of a user"):
            with tag("div", "", "line"):
                UserForm(visits, self._choose)
            self._shown = tag("div", "", "stack")

    async def _choose(self, user_id: str) -> None:
        self._user_id = user_id
        await self._load()

    async def _load(self) -> None:
        is_newest, user_id = self._histories.ask(), self._user_id
        events: list[StoredEvent] = []
        failure: AtspeedError | None = None
        try:
            events = (await self._client.history(user_id, SHOWN)).events
            await self._visits.note(user_id)
        except NotFound as error:
            failure = error
            await self._visits.drop(user_id)
        except AtspeedError as error:
            failure = error
        if not is_newest():
            return
        with self._shown.clear():
            if isinstance(failure, NotFound):
                tag("p", "Nothing is stored of this user.", "soft")
            elif failure is not None:
                show_error(str(failure))
                return
            with tag("form", "", "line").on("submit.prevent", partial(self._append, user_id)):
                self._item = ui.input("Item id").props("outlined dense").style("flex: 2 1 8rem")
                self._kind = ui.input("Kind").props("outlined dense").style("flex: 1 1 6rem")
                main_button("Add event")
            with tag("ul", "", "items plain"):
                for event in reversed(events):
                    self._line(user_id, event)

    def _line(self, user_id: str, event: StoredEvent) -> None:
        name = event.title or event.item_id
        with tag("li"):
            with tag("div", "", "what"):
                tag("span", name, "title")
                if event.kind:
                    tag("span", event.kind, "badge still")
                tag("div", f"{event.item_id} · {when(event.timestamp)}", "soft mono")
            icon_button("close", f"Delete {name}", partial(self._delete, user_id, event))

    async def _delete(self, user_id: str, event: StoredEvent) -> None:
        if not await ask_first(
            f"Delete {event.title or event.item_id} of {when(event.timestamp)} from the history of {user_id}?", "Delete"
        ):
            return
        if event.event_id is not None:
            deletion = self._client.delete_events(user_id, event_id=event.event_id)
        else:
            deletion = self._client.delete_events(user_id, item_id=event.item_id, timestamp=event.timestamp)
        await tell(deletion, "The event is deleted.")
        await self._load()

    async def _append(self, user_id: str) -> None:
        event = {"item_id": (self._item.value or "").strip(), "event_id": f"console-{uuid4().hex}"}
        if kind := (self._kind.value or "").strip():
            event["kind"] = kind
        if await tell(self._client.append_events(user_id, [event]), "The event is stored."):
            await self._load()
