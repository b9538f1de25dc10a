"""The frame of every page: the way to the others, the state of the server, and light or dark."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nicegui import ui

from server.client import AsyncAtspeedClient, AtspeedError
from server.console.elements import tag

PAGES = {"/": "Try it", "/why": "Why this list", "/operate": "Operate", "/items": "Items"}
STATE_SECONDS = 5.0
STYLE = Path(__file__).with_name("console.css").read_text()
# The choice is the browser's own, so it is kept there; without one, the system's is followed.
THEME_COOKIE = "atspeed-dark"
SWITCH_THEME = f"""() => {{
    Quasar.Dark.set(!Quasar.Dark.isActive);
    document.cookie = `{THEME_COOKIE}=${{Quasar.Dark.isActive}};path=/;max-age=31536000;samesite=lax`;
    emit(Quasar.Dark.isActive);
}}"""


@contextmanager
def frame(client: AsyncAtspeedClient, here: str, lead: str) -> Iterator[ui.element]:
    """One page with its heading and a sentence on what it is for; use it as a context for the rest, which gets its place for buttons."""
    ui.page_title(f"{PAGES[here]} · atspeed console")
    ui.add_css(STYLE)
    ui.colors(primary="var(--accent)")
    chosen = ui.context.client.request.cookies.get(THEME_COOKIE)
    dark = ui.dark_mode(None if chosen is None else chosen == "true")
    with ui.header(), tag("div", "", "top"):
        tag("span", "atspeed", "brand")
        with tag("nav", "", "", aria_label="Pages"):
            for path, name in PAGES.items():
                link = ui.link(name, path)
                if path == here:
                    link.props["aria-current"] = "page"
        _state(client)
        actions = tag("div")
        switch = ui.button(icon="contrast").props('flat round dense aria-label="Light or dark"')
        # Each change of the page sets the theme anew, to the one that is known here.
        switch.on("click", lambda event: dark.set_value(event.args), js_handler=SWITCH_THEME)
    page = tag("div", "", "page")
    ui.skip_link(target=page)
    with page:
        with tag("div"):
            tag("h1", PAGES[here])
            tag("p", lead, "lead")
        yield actions


def _state(client: AsyncAtspeedClient) -> None:
    """Whether the server takes requests, looked at now and then."""
    with tag("div", "", "state", role="status"):
        dot = tag("span", "", "dot", aria_hidden="true")
        label = tag("span", "…")

    async def look() -> None:
        try:
            await client.ready()
            version = await client.version()
            up, said = True, f"{version.model} · catalog {version.catalog_version}"
        except AtspeedError as error:
            up, said = False, str(error)
        dot.classes(replace="dot up" if up else "dot down")
        label.set_text(said)

    ui.timer(STATE_SECONDS, look)
