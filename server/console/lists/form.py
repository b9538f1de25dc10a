"""The form of a request: everything that a list can be asked for, but whom it is for."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from drafting.beam.rule import LONGEST_LIST, WIDEST_BEAM, Verification
from server.client import AsyncAtspeedClient, AtspeedError
from server.console.elements import tag
from server.console.lists.question import Question

ANY_ITEM = ""
IMAGE = "image"


def caps_text(diversity: Any) -> str:
    """The caps of a request as they are typed; one may stand without a list."""
    caps = [diversity] if isinstance(diversity, dict) else diversity or []
    return ", ".join(f"{cap['attribute']}={cap['at_most']}" for cap in caps)


class RequestForm:
    """The fields of a question's options; a change asks anew."""

    def __init__(self, client: AsyncAtspeedClient, question: Question, ask: Callable[[], Awaitable[None]]) -> None:
        self._client, self._question, self._ask = client, question, ask
        with tag("div", "", "line"):
            self._number("Items", "k", least=1, most=LONGEST_LIST)
            self._number("Beam width", "beam_width", least=1, most=WIDEST_BEAM)
            self._filter = self._choice("Filter", "filter", {ANY_ITEM: "Any item"})
            self._choice("Verification", "verification", {"": "As the server says"} | {each.value: each.value for each in Verification})
            ui.checkbox(
                "Without the history",
                value=bool(question.options.get("exclude_history")),
                on_change=lambda event: self._set("exclude_history", event.value),
            )
        with tag("details"):
            tag("summary", "More")
            with tag("div", "", "line"):
                self._number("Seed", "seed", least=0)
                self._number("Temperature", "temperature", least=0.01, most=100, step=0.1)
                self._part("Fresh items at least", "fresh", "min", {"max_age_days": 7})
                self._part("Fresh for days", "fresh", "max_age_days", {"min": 1})
                self._part("Weight of neighbours", "blend", "weight", {})
                self._part("Others at most", "tolerance", "items", {})
                self._part("Missing share at most", "tolerance", "mass", {})
            caps = ui.input("Most items of a value", placeholder="brand=2, genres=4", value=caps_text(question.options.get("diversity")))
            caps.props("outlined dense debounce=600").style("width: 13rem").on_value_change(lambda event: self._set_caps(event.value))
            self._caps = caps
            widths = ui.input(
                "Beam widths of levels", placeholder="16, 64, 200", value=", ".join(map(str, question.options.get("beam_widths", ())))
            )
            widths.props("outlined dense debounce=600").style("width: 11rem").on_value_change(lambda event: self._set_widths(event.value))
            self._widths = widths
            context = ui.input("Context, as JSON", value=json.dumps(question.options["context"]) if question.options.get("context") else "")
            context.props("outlined dense debounce=600").style("width: 100%").on_value_change(lambda event: self._set_context(event.value))
            self._context = context

    async def load(self) -> None:
        """Fill in what the server knows: named filters, and whether items have pictures."""
        try:
            named = (await self._client.filters()).filters
            first = (await self._client.items(limit=1)).items
            has_image = bool(first) and IMAGE in (await self._client.item(first[0].item_id)).attributes
        except AtspeedError:
            # The list says what is wrong.
            return
        if has_image:
            self._question.options["fields"] = [IMAGE]
        choices = {ANY_ITEM: "Any item"} | {each.name: f"{each.name} ({each.items:,})" for each in named}
        asked = self._filter.value
        self._filter.set_options(choices | ({} if asked in choices else {asked: asked}), value=asked)

    def _number(self, label: str, name: str, *, least: float, most: float | None = None, step: float = 1) -> None:
        number = ui.number(label, value=self._question.options.get(name), min=least, max=most, step=step)
        number.props("outlined dense debounce=400").style("width: 8rem")
        whole = step == 1
        number.on_value_change(lambda event: self._set(name, int(event.value) if whole and event.value is not None else event.value))

    def _part(self, label: str, name: str, part: str, others: dict[str, Any]) -> None:
        """A field of an object of the body; without a value there is no object."""
        number = ui.number(label, value=self._question.options.get(name, {}).get(part), min=0)
        number.props("outlined dense debounce=400").style("width: 11rem")

        async def set_part(value: float | None) -> None:
            whole = value is not None and float(value).is_integer()
            now = None if value is None else others | self._question.options.get(name, {}) | {part: int(value) if whole else value}
            await self._set(name, now or {})

        number.on_value_change(lambda event: set_part(event.value))

    def _choice(self, label: str, name: str, choices: dict[str, str]) -> ui.select:
        asked = self._question.options.get(name, "")
        # Names of filters may stand in an object, which an address can hold.
        shown = asked if isinstance(asked, str) else json.dumps(asked)
        select = ui.select(choices if shown in choices else choices | {shown: shown}, label=label, value=shown)
        select.props("outlined dense").style("min-width: 11rem")
        select.on_value_change(lambda event: self._set(name, asked if event.value == shown else event.value))
        return select

    async def _set_widths(self, text: str) -> None:
        parts = [part.strip() for part in (text or "").split(",") if part.strip()]
        self._widths.props["error"] = not all(map(str.isdecimal, parts))
        self._widths.props["error-message"] = "Whole numbers with commas between them, one for each level but the last."
        if not self._widths.props["error"]:
            await self._set("beam_widths", list(map(int, parts)))

    async def _set_caps(self, text: str) -> None:
        caps = [part.strip().rpartition("=") for part in (text or "").split(",") if part.strip()]
        self._caps.props["error"] = not all(name and most.strip().isdecimal() for name, _, most in caps)
        self._caps.props["error-message"] = "Attributes, each with how many items of one of its values there may be."
        if not self._caps.props["error"]:
            await self._set("diversity", [{"attribute": name.strip(), "at_most": int(most)} for name, _, most in caps])

    async def _set_context(self, text: str) -> None:
        try:
            context = json.loads(text) if text and text.strip() else {}
        except json.JSONDecodeError as error:
            self._context.props["error"], self._context.props["error-message"] = True, f"This is no JSON: {error}"
            return
        self._context.props["error"] = False
        await self._set("context", context)

    async def _set(self, name: str, value: object) -> None:
        if self._question.options.get(name) != value:
            self._question.options[name] = value
            await self._ask()
