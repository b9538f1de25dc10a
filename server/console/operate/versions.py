"""Versions of the catalog: what is served, what was, and what is different between two of them."""

import time
from collections.abc import Awaitable, Callable
from functools import partial

from nicegui import ui

from server.client import AsyncAtspeedClient, AtspeedError
from server.console.elements import ask_first, card, main_button, show_error, table, tag, tell
from server.schemas.catalogs import CatalogsAnswer

BY = "console"
HISTORY = 10
NAMED = 10


class Versions:
    """The versions, with what can be done with them."""

    def __init__(self, client: AsyncAtspeedClient, changed: Callable[[], Awaitable[None]]) -> None:
        """`changed` shows anew what depends on the version that is served, this included."""
        self._client, self._changed = client, changed
        with card("Versions of the catalog"):
            self._shown = tag("div", "", "stack")
        ui.timer(0, self.load, once=True)

    async def load(self) -> None:
        """Ask for the versions and show them."""
        try:
            found = await self._client.catalogs()
        except AtspeedError as error:
            with self._shown.clear():
                show_error(str(error))
            return
        with self._shown.clear():
            self._show(found)

    def _show(self, found: CatalogsAnswer) -> None:
        with tag("ul", "", "items plain"):
            for version in found.versions:
                with tag("li"):
                    with tag("div", "", "what"):
                        tag("span", version, "title")
                        if version == found.active:
                            tag("span", "served", "badge new")
                        for left in found.left:
                            if left.version == version:
                                tag("span", f"left: {left.reason}", "soft small")
                    if version != found.active:
                        button = ui.button("Activate", on_click=partial(self._activate, version)).props("outline dense padding='0 0.7rem'")
                        button.classes("do").props["aria-label"] = f"Activate {version}"
        if len(found.history) > 1:
            with tag("div", "", "line"):
                ui.button("Roll back", icon="undo", on_click=partial(self._roll_back, found.active)).props("flat dense")
        if len(found.versions) > 1:
            self._show_comparison(found)
        if found.history:
            tag("h3", "Activations, the newest first")
            rows = [[when(each.at), each.version, each.by] for each in reversed(found.history[-HISTORY:])]
            table("Activations", ["When", "Version", "By"], rows)

    def _show_comparison(self, found: CatalogsAnswer) -> None:
        """Two versions to choose, and what is different between them."""
        newest = next(version for version in reversed(found.versions) if version != found.active)
        tag("h3", "What is different")
        with tag("form", "", "line").on("submit.prevent", self._compare):
            self._base = ui.select(found.versions, label="From", value=found.active).props("outlined dense").style("flex: 1 1 8rem")
            self._version = ui.select(found.versions, label="To", value=newest).props("outlined dense").style("flex: 1 1 8rem")
            main_button("Compare")
        self._difference = tag("div", "", "stack", aria_live="polite")

    async def _compare(self) -> None:
        found = await tell(self._client.difference(self._version.value, self._base.value, NAMED))
        self._difference.clear()
        if found is None:
            return
        with self._difference:
            tag("p", f"{found.base_items:,} items become {found.items:,}.")
            for said, some in (
                ("added", found.added),
                ("removed", found.removed),
                ("with another identifier", found.identifier_changed),
                ("with other attributes", found.attributes_changed),
            ):
                names = ", ".join(item.title or item.item_id for item in some.items)
                more = " …" if some.count > len(some.items) else ""
                tag("p", f"{some.count:,} {said}{': ' if names else ''}{names}{more}", "" if some.count else "soft")

    async def _activate(self, version: str) -> None:
        if await ask_first(f"Serve version {version} from now on?", "Activate"):
            await tell(self._client.activate(version, BY), f"Version {version} is served.")
            await self._changed()

    async def _roll_back(self, served: str) -> None:
        if await ask_first(f"Serve the version before {served} again?", "Roll back"):
            await tell(self._client.roll_back(BY, served), "The version before is served.")
            await self._changed()


def when(seconds: float) -> str:
    """A point in time, in the zone of this machine, which need not be that of whoever reads it."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))
