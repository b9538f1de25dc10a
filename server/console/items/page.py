"""*Items*: find one, and see its identifier, its neighbours in the trie, and its places in lists of users."""

from collections.abc import Sequence
from functools import partial
from urllib.parse import quote

from nicegui import ui

from server.client import AsyncAtspeedClient, AtspeedError
from server.console.elements import bar, card, facts, main_button, show_error, tag
from server.console.lists.form import IMAGE
from server.console.newest import Newest
from server.console.visits import Visits
from server.schemas.catalogs import CatalogItem, CatalogItemAnswer
from server.schemas.comparisons import AlikeAnswer

PATH = "/items"
FOUND = 20
ALIKE = 12
LIST = 50
MOST_USERS = 20


class Items:
    """One visit of the page."""

    def __init__(self, client: AsyncAtspeedClient, visits: Visits, item_id: str) -> None:
        self._client, self._visits, self._item_id = client, visits, item_id
        self._searches, self._choices = Newest(), Newest()
        self._links: dict[str, ui.element] = {}

    def build(self) -> None:
        """Make the page's parts, and fill them as soon as it is shown."""
        with tag("div", "", "aside"):
            with card("Find"):
                self._search = ui.input("Title or id").props("outlined dense debounce=300 clearable")
                self._search.on_value_change(self._find)
                self._found = tag("ul", "", "items plain", aria_live="polite")
            self._shown = tag("div", "", "stack")
        with self._shown:
            tag("p", "Choose an item.", "empty")
        ui.timer(0, self._open, once=True)

    async def _open(self) -> None:
        await self._find()
        if self._item_id:
            await self._choose(self._item_id)

    async def _find(self) -> None:
        """Items that the text in the search names; the first of the catalog without one."""
        is_newest = self._searches.ask()
        try:
            found = (await self._client.items(limit=FOUND, q=(self._search.value or "").strip() or None)).items
        except AtspeedError as error:
            if is_newest():
                self._links = {}
                with self._found.clear(), tag("li"):
                    show_error(str(error))
            return
        if not is_newest():
            return
        with self._found.clear():
            if not found:
                tag("li", "No item has this id or title.", "soft")
            self._links = {item.item_id: self._link(item) for item in found}
        self._mark()

    def _link(self, item: CatalogItem) -> ui.element:
        """An entry of a list with an item's name, which shows it; the result is its button."""
        with tag("li"), tag("div", "", "what"):
            button = tag("button", item.title or item.item_id, "link", type="button").on("click", partial(self._choose, item.item_id))
            tag("div", f"{item.item_id} · {' '.join(item.identifier)}", "soft mono")
        return button

    def _mark(self) -> None:
        """Say which of the items that were found is shown."""
        for item_id, link in self._links.items():
            link.props.set_optional("aria-current", "true" if item_id == self._item_id else None)

    async def _choose(self, item_id: str) -> None:
        is_newest = self._choices.ask()
        try:
            item = await self._client.item(item_id)
            alike = await self._client.items_like(item_id, ALIKE)
        except AtspeedError as error:
            if is_newest():
                with self._shown.clear():
                    show_error(str(error))
            return
        users = await self._visits.users()
        if not is_newest():
            return
        self._item_id = item_id
        self._mark()
        with self._shown.clear():
            ui.navigate.history.replace(f"{PATH}?item={quote(item_id)}")
            _show_item(item)
            Places(self._client, users[:MOST_USERS], item)
            self._show_alike(alike)

    def _show_alike(self, alike: AlikeAnswer) -> None:
        """Neighbours by the longest beginning that they share."""
        with card("Neighbours in the trie"):
            for group in alike.alike:
                if not group.count:
                    continue
                more = f", the first {len(group.items)} of {group.count:,}" if group.count > len(group.items) else f" ({group.count})"
                tag("h3", f"They share {' '.join(group.shared)}{more}")
                with tag("ul", "", "items plain side"):
                    for item in group.items:
                        self._link(item)
            if not any(group.count for group in alike.alike):
                tag("p", "No item shares even the first token.", "soft")


def _show_item(item: CatalogItemAnswer) -> None:
    with card(item.title or item.item_id):
        image = item.attributes.get(IMAGE)
        if isinstance(image, str):
            tag("img", "", "image large", src=image, alt="", loading="lazy")
        known = [(name, told(value)) for name, value in item.attributes.items() if name != IMAGE]
        facts([("Item", item.item_id), ("Identifier", " ".join(item.identifier)), ("Catalog", item.version), *known])


def told(value: object) -> str:
    """A value of an attribute as people read it."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


class Places:
    """Where an item is in lists of users."""

    def __init__(self, client: AsyncAtspeedClient, users: Sequence[str], item: CatalogItemAnswer) -> None:
        """`users` are those that the field begins with."""
        self._client, self._item = client, item
        self._looks = Newest()
        with card("In lists of users"):
            with tag("form", "", "line").on("submit.prevent", self._look):
                self._users = ui.input("User ids", value=", ".join(users)).props("outlined dense required").style("flex: 1")
                main_button("Look")
            tag("p", f"Its place among the {LIST} best of each, with commas between ids.", "soft small")
            self._shown = tag("ul", "", "items bars", aria_live="polite")

    async def _look(self) -> None:
        users = list(dict.fromkeys(user.strip() for user in (self._users.value or "").split(",") if user.strip()))[:MOST_USERS]
        if not users:
            return
        is_newest = self._looks.ask()
        try:
            results = (await self._client.recommend_many([{"user_id": user, "k": LIST} for user in users])).results
        except AtspeedError as error:
            if is_newest():
                with self._shown.clear(), tag("li"):
                    show_error(str(error))
            return
        if not is_newest():
            return
        with self._shown.clear():
            for user, result in zip(users, results, strict=True):
                items = [] if result.recommendation is None else result.recommendation.items
                place = next((item.rank for item in items if item.item_id == self._item.item_id), None)
                with tag("li"):
                    ui.link(user, f"/?user={quote(user, safe='')}")
                    if result.problem is not None:
                        tag("span", result.problem.detail, "soft small")
                    elif place is None:
                        tag("span", f"not among the first {LIST}", "soft small")
                    else:
                        bar(1 - (place - 1) / LIST, f"place {place}")
                        tag("span", f"{place}", "number")
