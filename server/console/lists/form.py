"""The form of a request: everything that a list can be asked for, but whom it is for."""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from nicegui import ui

from drafting.beam.rule import LONGEST_LIST, WIDEST_BEAM, Verification
from server.client import AsyncAtspeedClient, AtspeedError
from server.console.elements import tag
from server.console.lists.question import Question
from server.console.typed import json_of, whole_number

ANY_ITEM = ""
IMAGE = "image"
# What an object has of which only one field has a value.
DEFAULTS: dict[str, dict[str, float]] = {"fresh": {"max_age_days": 7, "min": 1}}


def caps_text(diversity: Any) -> str:
    """The caps of a request as they are typed; one may stand without a list."""
    caps = [diversity] if isinstance(diversity, dict) else diversity or []
    return ", ".join(f"{cap['attribute']}={cap['at_most']}" for cap in caps)


def caps_of(text: str) -> list[dict[str, Any]]:
    """The caps of a request of what is typed; raises ValueError if it is none."""
    caps = []
    for part in (part for part in text.split(",") if part.strip()):
        name, _, most = part.strip().rpartition("=")
        if not name:
            raise ValueError("A cap has an attribute.")
        caps.append({"attribute": name.strip(), "at_most": whole_number(most.strip())})
    return caps


def widths_of(text: str) -> list[int]:
    """The widths of levels of what is typed; raises ValueError if it is none."""
    return [whole_number(part.strip()) for part in text.split(",") if part.strip()]


class RequestForm:
    """The fields of a question's options; a change asks anew."""

    def __init__(self, client: AsyncAtspeedClient, question: Question, ask: Callable[[], Awaitable[None]]) -> None:
        self._client, self._question, self._ask = client, question, ask
        # Of each object of the body the parts whose fields have a value.
        self._parts: dict[str, dict[str, float]] = {}
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
                self._part("Fresh items at least", "fresh", "min")
                self._part("Fresh for days", "fresh", "max_age_days")
                self._part("Weight of neighbours", "blend", "weight")
                self._part("Others at most", "tolerance", "items")
                self._part("Missing share at most", "tolerance", "mass")
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
        # What is wrong, the list says; and a key for lists alone may read items, and no filters.
        with suppress(AtspeedError):
            first, options = (await self._client.items(limit=1)).items, self._question.options
            if first and IMAGE in (await self._client.item(first[0].item_id)).attributes and options.get("format") != "ids":
                # Beside what the address of the page names.
                options["fields"] = [*dict.fromkeys([*options.get("fields", ()), IMAGE])]
        try:
            named = (await self._client.filters()).filters
        except AtspeedError:
            return
        choices = {ANY_ITEM: "Any item"} | {each.name: f"{each.name} ({each.items:,})" for each in named}
        asked = self._filter.value
        self._filter.set_options(choices | ({} if asked in choices else {asked: asked}), value=asked)

    def _number(self, label: str, name: str, *, least: float, most: float | None = None, step: float = 1) -> None:
        number = ui.number(label, value=self._question.options.get(name), min=least, max=most, step=step)
        number.props("outlined dense debounce=400").style("width: 8rem")
        whole = step == 1
        number.on_value_change(lambda event: self._set(name, int(event.value) if whole and event.value is not None else event.value))

    def _part(self, label: str, name: str, part: str) -> None:
        """A field of an object of the body; there is no object where none of its fields has a value."""
        known, filled = self._question.options.get(name, {}), self._parts.setdefault(name, {})
        if known.get(part) is not None:
            filled[part] = known[part]
        number = ui.number(label, value=filled.get(part), min=0)
        number.props("outlined dense debounce=400").style("width: 11rem")

        async def set_part(value: float | None) -> None:
            filled.pop(part, None)
            if value is not None:
                filled[part] = int(value) if float(value).is_integer() else value
            others = {each: left for each, left in self._question.options.get(name, {}).items() if each != part}
            await self._set(name, DEFAULTS.get(name, {}) | others | filled if filled else {})

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
        await self._set_typed(
            "beam_widths", self._widths, widths_of, text, "Whole numbers with commas between them, one for each level but the last."
        )

    async def _set_caps(self, text: str) -> None:
        await self._set_typed(
            "diversity", self._caps, caps_of, text, "Attributes, each with how many items of one of its values there may be."
        )

    async def _set_context(self, text: str) -> None:
        await self._set_typed("context", self._context, lambda text: json_of(text) if text.strip() else {}, text)

    async def _set_typed(self, name: str, field: ui.input, read: Callable[[str], Any], text: str | None, rule: str = "") -> None:
        """Set an option to what is typed, or say beside its field why it is none: the `rule`, or the reader's own words."""
        try:
            value = read(text or "")
        except ValueError as error:
            field.props["error"], field.props["error-message"] = True, rule or str(error)
            return
        field.props["error"] = False
        await self._set(name, value)

    async def _set(self, name: str, value: object) -> None:
        if self._question.options.get(name) != value:
            self._question.options[name] = value
            await self._ask()
