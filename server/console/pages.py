"""The console's pages and their paths."""

from collections.abc import Callable

from nicegui import ui

from server.client import AsyncAtspeedClient
from server.console.door import Door
from server.console.frame import frame
from server.console.items.page import Items
from server.console.lists.question import Question
from server.console.lists.try_it import TryIt
from server.console.lists.why import Why
from server.console.operate.page import build_operate
from server.console.visits import Visits
from server.settings import ConsoleOptions

# A page is made before its parts are filled, but a crowded machine may take long for that.
BUILD_SECONDS = 30.0


def add_pages(options: ConsoleOptions) -> None:
    """Add all pages to NiceGUI's app."""
    door = Door(options)

    async def visit(here: str, lead: str, build: Callable[[AsyncAtspeedClient, Visits], None]) -> None:
        client = door.visitor()
        with frame(client, here, lead) as actions:
            if await door.open(client, actions):
                build(client, Visits(ui.context.client))

    @ui.page("/", response_timeout=BUILD_SECONDS)
    async def try_it(ask: str = "", user: str = "") -> None:
        lead = "Choose a user, change what they have met or what is asked for, and see how the list follows."
        await visit("/", lead, lambda client, visits: TryIt(client, visits, Question.of_address(ask, user)).build())

    @ui.page("/why", response_timeout=BUILD_SECONDS)
    async def why(ask: str = "", user: str = "") -> None:
        lead = "Every prefix that the search considered, with the model's numbers: what was kept, drafted and cut."
        await visit("/why", lead, lambda client, visits: Why(client, visits, Question.of_address(ask, user)).build())

    @ui.page("/operate", response_timeout=BUILD_SECONDS)
    async def operate() -> None:
        lead = "What the server does now, and what it recommends from."
        await visit("/operate", lead, build_operate)

    @ui.page("/items", response_timeout=BUILD_SECONDS)
    async def items(item: str = "") -> None:
        lead = "Find an item, and see where it stands: in the trie of identifiers, and in lists."
        await visit("/items", lead, lambda client, visits: Items(client, visits, item).build())
