"""A form for an item that the catalog does not have yet."""

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from server.client import AsyncAtspeedClient
from server.console.elements import card, main_button, show_error, tag, tell
from server.console.typed import json_of, numbers_of


class NewItem:
    """One item at a time: what names it, and where it belongs."""

    def __init__(self, client: AsyncAtspeedClient, changed: Callable[[], Awaitable[None]]) -> None:
        """`changed` is called when there is an item more, and so a version."""
        self._client, self._changed = client, changed
        with card("New item"), tag("form", "", "stack").on("submit.prevent", self._add):
            with tag("div", "", "line"):
                self._id = ui.input("Item id").props("outlined dense").style("flex: 1 1 8rem")
                self._title = ui.input("Title").props("outlined dense").style("flex: 2 1 12rem")
            self._place = ui.input("Identifier, or embedding").props("outlined dense")
            self._attributes = ui.input("Attributes, as JSON").props("outlined dense")
            with tag("div", "", "line between"):
                tag("p", "Tokens or numbers, with spaces between them.", "soft small")
                main_button("Add")
            self._said = tag("div")

    async def _add(self) -> None:
        self._said.clear()
        try:
            item = new_item(self._id.value or "", self._title.value or "", self._place.value or "", self._attributes.value or "")
        except ValueError as error:
            with self._said:
                show_error(str(error))
            return
        if added := await tell(self._client.add_items([item], by="console"), f"{item['item_id']} is in the catalog."):
            with self._said:
                line = added.items[0]
                moved = ", the nearest one that was free" if line.moved else ""
                tag("p", f"{line.item_id} is {' '.join(line.identifier)}{moved}, in version {added.version}.", "told")
            await self._changed()


def new_item(item_id: str, title: str, place: str, attributes: str) -> dict[str, Any]:
    """The item that a form describes.

    Raises:
        ValueError: the attributes are no JSON object, or the embedding is not finite.
    """
    words = place.replace(",", " ").split()
    numbers = numbers_of(words)
    known = json_of(attributes) if attributes.strip() else {}
    if not isinstance(known, dict):
        raise ValueError('The attributes must be a JSON object, such as {"year": 1990}.')
    item: dict[str, Any] = {"item_id": item_id.strip()} | ({"embedding": numbers} if numbers else {"identifier": words})
    return item | ({"title": title.strip()} if title.strip() else {}) | ({"attributes": known} if known else {})
