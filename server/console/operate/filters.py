"""Named filters: how many items they leave, new ones, and their end."""

from nicegui import ui

from server.client import AsyncAtspeedClient, AtspeedError
from server.console.elements import ask_first, card, icon_button, main_button, show_error, tag, tell
from server.schemas.catalogs import FilterAnswer

SAMPLE = 8


class Filters:
    """The named filters, with a form for another."""

    def __init__(self, client: AsyncAtspeedClient) -> None:
        self._client = client
        with card("Filters"):
            self._shown = tag("div", "", "stack")
            with tag("form", "", "stack").on("submit.prevent", self._put):
                with tag("div", "", "line"):
                    self._name = ui.input("Name").props("outlined dense required").style("flex: 1 1 8rem")
                    self._expression = ui.input("Expression").props("outlined dense").style("flex: 3 1 14rem")
                    main_button("Name it")
                tag("p", 'Over the attributes of items, such as year >= 1990 and genres has "Comedy".', "soft small")
        ui.timer(0, self.load, once=True)

    async def load(self) -> None:
        """Ask for the filters and show them."""
        try:
            named = (await self._client.filters()).filters
            items = (await self._client.catalog()).items
        except AtspeedError as error:
            with self._shown.clear():
                show_error(str(error))
            return
        with self._shown.clear():
            if not named:
                tag("p", "No filter has a name yet.", "soft")
            with tag("ul", "", "items plain"):
                for each in named:
                    self._line(each, items)

    def _line(self, named: FilterAnswer, items: int) -> None:
        with tag("li"):
            with tag("div", "", "what"):
                tag("span", named.name, "title")
                tag("span", f"{named.items:,} of {items:,} items", "badge still" if named.items else "badge")
                tag("div", named.expression or "item ids", "soft mono")
                some = tag("p", "", "soft small", aria_live="polite")

            async def show_some() -> None:
                if found := await tell(self._client.filter_sample(named.name, SAMPLE)):
                    some.set_text(", ".join(item.title or item.item_id for item in found.sample) or "It leaves no item.")

            with tag("div", "", "line do"):
                ui.button("Sample", on_click=show_some).props("flat dense").props["aria-label"] = f"A sample of the filter {named.name}"
                icon_button("close", f"Forget the filter {named.name}", lambda: self._forget(named.name))

    async def _put(self) -> None:
        name, expression = (self._name.value or "").strip(), (self._expression.value or "").strip()
        if name and await tell(self._client.put_filter(name, expression=expression), f"The filter {name} can be used."):
            await self.load()

    async def _forget(self, name: str) -> None:
        if await ask_first(f"Forget the filter {name}? Requests that name it are refused from then on.", "Forget"):
            await tell(self._client.forget_filter(name), f"The filter {name} is forgotten.")
            await self.load()
