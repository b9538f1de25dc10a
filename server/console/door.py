"""`Door`: what lets a visitor in: a client of the API for one visit of a page, with the tab's key where the server asks for one.

Invariant: a key that is typed in stays in the tab (its `sessionStorage`) and in the memory of its visits, and no visitor is let in before
the server has judged their key. The console allows a visitor no more than the server itself would: a server without keys trusts its own
machine, where the console runs, so visitors from elsewhere are announced to it as such.
"""

import json

from nicegui import ui

from server.client import AsyncAtspeedClient, AtspeedError, Denied
from server.console.elements import card, main_button, show_error, tag
from server.console.visits import FORGET_VISITS
from server.keys.gate import is_local
from server.settings import ConsoleOptions

_NAME = "atspeed-key"
_UNAUTHORIZED = 401
CONNECT_SECONDS = 30.0
FORGET = f"() => {{ sessionStorage.removeItem('{_NAME}'); {FORGET_VISITS}; location.reload(); }}"
LOOK_SECONDS = 5.0


class Door:
    """The door of one console."""

    def __init__(self, options: ConsoleOptions) -> None:
        self._url = options.url
        # What a server has started is beside it: no proxy of the environment is between them, nor is the key there meant for visitors, and
        # its certificate is for the name that others call it by.
        self._beside = options.parent is not None

    def visitor(self) -> AsyncAtspeedClient:
        """The client of the visit that the page is being made for."""
        visit = ui.context.client
        client = AsyncAtspeedClient(
            self._url,
            key="" if self._beside else None,
            headers=self._announced(),
            trust_env=not self._beside,
            verify=not self._beside,
        )
        visit.on_delete(client.close)
        return client

    async def open(self, client: AsyncAtspeedClient, actions: ui.element) -> bool:
        """Whether the page can be made; if not, a form for a key is.

        Args:
            actions: takes what is for the whole page.
        """
        try:
            if await _lets_in(client):
                return True
            await ui.context.client.connected(CONNECT_SECONDS)
            kept = await ui.run_javascript(f"sessionStorage.getItem('{_NAME}')", timeout=CONNECT_SECONDS)
            client.use_key(kept or "")
            if kept and await _lets_in(client):
                with actions:
                    ui.button(icon="key").props('flat round dense aria-label="Another key"').on("click", js_handler=FORGET)
                return True
        except AtspeedError as error:
            _wait(client, error)
            return False
        _ask(client)
        return False

    def _announced(self) -> dict[str, str]:
        request = ui.context.client.request
        peer = None if request.client is None else request.client.host
        return {} if is_local(peer, request.headers.raw) else {"X-Forwarded-For": peer or "unknown"}


async def _lets_in(client: AsyncAtspeedClient) -> bool:
    """Whether the server takes the client's key, or asks for none.

    Raises:
        AtspeedError: it does not say.
    """
    try:
        await client.catalog()
    except Denied as error:
        return error.status != _UNAUTHORIZED
    return True


def _wait(client: AsyncAtspeedClient, error: AtspeedError) -> None:
    """Say why nobody is let in, until the server judges again."""
    with card("No answer of the server"):
        said = tag("p", str(error), "alert", role="alert")

    async def look() -> None:
        try:
            await _lets_in(client)
        except AtspeedError as error:
            said.set_text(str(error))
            return
        ui.navigate.reload()

    ui.timer(LOOK_SECONDS, look, immediate=False)


def _ask(client: AsyncAtspeedClient) -> None:
    with card("Key"):
        tag("p", "The server asks for a key. It is kept in this tab until it is closed.")

        async def use() -> None:
            key = (typed.value or "").strip()
            client.use_key(key)
            said.clear()
            wrong = "The server does not know this key."
            try:
                # Others have no form in a header; no server knows them.
                if key.isascii() and await _lets_in(client):
                    keep = f"{FORGET_VISITS}; sessionStorage.setItem('{_NAME}', {json.dumps(key)})"
                    await ui.run_javascript(keep, timeout=CONNECT_SECONDS)
                    ui.navigate.reload()
                    return
            except AtspeedError as error:
                wrong = str(error)
            with said:
                show_error(wrong)

        with tag("form").on("submit.prevent", use), tag("div", "", "line"):
            typed = ui.input("Key", password=True).props("outlined dense autocomplete=off")
            main_button("Use it")
        said = tag("div")
