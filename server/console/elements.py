"""Elements that all pages are made of: headings, cards, bars, tables, and the words of errors.

Invariant: whatever a server says is set as text, never as HTML, so that a title is shown as it is and nothing in it is run.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from server.client import AtspeedError

# What a button does; a coroutine is awaited.
Handler = Callable[[], Any]
Answer = TypeVar("Answer")
# Browsers give a page `navigator.clipboard` by HTTPS and from their own machine only.
COPY = """() => {{
    getSelection().selectAllChildren(document.getElementById("{}"));
    const copied = document.execCommand("copy");
    Quasar.Notify.create(copied ? "Copied." : "It is selected: copy it by keyboard.");
}}"""


def tag(name: str, text: str = "", classes: str = "", **attributes: str) -> TextElement:
    """An HTML element with a text; `_` in the names of attributes stands for a dash, and is left out at the end."""
    element = TextElement(tag=name, text=text)
    if classes:
        element.classes(classes)
    for attribute, value in attributes.items():
        element.props[attribute.rstrip("_").replace("_", "-")] = value
    return element


def card(title: str, level: str = "h2") -> ui.element:
    """A section with a heading; use it as a context."""
    section = tag("section", "", "card", aria_label=title)
    with section:
        tag(level, title)
    return section


def focus(element: ui.element) -> None:
    """Give the focus of the keyboard to an element, where what had it is gone."""
    element.client.run_javascript(f"document.getElementById('{element.html_id}')?.focus()")


def show_error(sentence: str) -> None:
    """What went wrong, read aloud at once by a screen reader."""
    tag("p", sentence, "alert", role="alert")


def main_button(text: str, act: Handler | None = None) -> ui.button:
    """The button of a card that does what the card is for; without `act` it sends its form."""
    button = ui.button(text, on_click=act, color=None).props("unelevated dense").classes("main")
    return button if act is not None else button.props("type=submit")


def icon_button(icon: str, label: str, act: Handler) -> ui.button:
    """A small button at the end of a line, which shows a sign; the label says what it does."""
    button = ui.button(icon=icon, on_click=act).props("flat round dense size=sm").classes("do")
    button.props["aria-label"] = label
    return button


def bar(share: float, label: str) -> None:
    """A bar from 0 to 1; the label is for those who do not see it."""
    with tag("span", "", "bar", role="img", aria_label=label):
        tag("span").style(f"width: {100 * min(max(share, 0.0), 1.0):.1f}%")


def parts(title: str, values: Sequence[tuple[str, float]], unit: str) -> None:
    """Values that make up a whole, at most four, as one bar with a legend."""
    whole = sum(value for _, value in values) or 1.0
    said = ", ".join(f"{name} {value:.1f} {unit}" for name, value in values)
    with tag("div", "", "parts", role="img", aria_label=f"{title}: {said}"):
        for number, (_, value) in enumerate(values, start=1):
            tag("span", "", f"part-{number}").style(f"width: {100 * value / whole:.2f}%")
    with tag("ul", "", "legend"):
        for number, (name, value) in enumerate(values, start=1):
            with tag("li"):
                tag("i", "", f"part-{number}", aria_hidden="true")
                tag("span", f"{name} {value:.1f} {unit}")


def facts(lines: Sequence[tuple[str, str]]) -> None:
    """Names and what belongs to them."""
    with tag("dl", "", "facts"):
        for name, value in lines:
            tag("dt", name)
            tag("dd", value)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[TextElement]]:
    """A table of texts, which scrolls where it is too wide; `title` is for screen readers.

    Returns:
        its cells by row, those of the head first, for texts that change.
    """
    with tag("div", "", "scroll", tabindex="0", role="group", aria_label=title), tag("table", "", "", aria_label=title):
        with tag("thead"), tag("tr"):
            cells = [[tag("th", column, scope="col") for column in columns]]
        with tag("tbody"):
            for row in rows:
                with tag("tr"):
                    cells.append([tag("td", cell) for cell in row])
    return cells


def code(text: str, label: str) -> None:
    """Text to copy, with a button that does."""
    with tag("div", "", "stack"):
        shown = tag("pre", text, "mono", tabindex="0", role="region", aria_label=label)
        with tag("div", "", "line"):
            button = ui.button(f"Copy {label}", icon="content_copy").props("flat dense no-caps")
            button.on("click", js_handler=COPY.format(shown.html_id))


async def ask_first(question: str, act: str) -> bool:
    """Ask before something is done that others notice."""
    with ui.dialog() as dialog, tag("div", "", "card", role="document"):
        tag("p", question)
        with tag("div", "", "line"):
            main_button(act, lambda: dialog.submit(True))
            ui.button("Cancel", on_click=lambda: dialog.submit(False)).props("flat")
    dialog.props["aria-label"] = question
    answer = await dialog
    dialog.delete()
    return bool(answer)


async def tell(work: Awaitable[Answer], done: str = "") -> Answer | None:
    """Do something on the server, and say that it is done, if there is something to say, or why not; None if it is not."""
    try:
        answer = await work
    except AtspeedError as error:
        ui.notify(str(error), type="negative", multi_line=True, timeout=15_000, close_button="Close")
        return None
    if done:
        ui.notify(done, type="positive")
    return answer
