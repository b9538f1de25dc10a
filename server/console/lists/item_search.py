"""A field that finds items by id or title, and a button beside each that is found."""

from collections.abc import Awaitable, Callable
from functools import partial

from nicegui import ui

from server.client import AsyncAtspeedClient, AtspeedError
from server.console.elements import icon_button, show_error, tag
from server.console.newest import Newest

FOUND = 8


class ItemSearch:
    """The field and what it has found."""

    def __init__(
        self,
        client: AsyncAtspeedClient,
        label: str,
        button: str,
        act: Callable[[str, str | None], Awaitable[None]],
    ) -> None:
        """
        Args:
            button: what the button of an item is called, with `{}` for the item's name.
            act: takes the id and the title of the item that is chosen.
        """
        self._client, self._button, self._act = client, button, act
        self._answers = Newest()
        self._field = ui.input(label).props("outlined dense debounce=300 clearable")
        self._field.on_value_change(self._find)
        self._found = tag("ul", "", "items plain")

    async def _find(self) -> None:
        text = (self._field.value or "").strip()
        is_newest = self._answers.ask()
        try:
            items = (await self._client.items(limit=FOUND, q=text)).items if text else []
        except AtspeedError as error:
            if is_newest():
                with self._found.clear(), tag("li"):
                    show_error(str(error))
            return
        if not is_newest():
            return
        with self._found.clear():
            if text and not items:
                tag("li", "No item has this id or title.", "soft")
            for item in items:
                name = item.title or item.item_id
                with tag("li"):
                    tag("span", name, "what title")
                    icon_button("add", self._button.format(name), partial(self._take, item.item_id, item.title))

    async def _take(self, item_id: str, title: str | None) -> None:
        self._field.set_value("")
        await self._act(item_id, title)
