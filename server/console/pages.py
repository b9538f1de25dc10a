"""The console's pages and their paths."""

from nicegui import ui

from server.client import AsyncAtspeedClient
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
    # What a server has started is beside it, and no proxy of the environment between them.
    # Its certificate is for the name that others call it by.
    beside = options.parent is not None
    client = AsyncAtspeedClient(options.url, key=options.key, trust_env=not beside, verify=not beside)
    visits = Visits()

    @ui.page("/", response_timeout=BUILD_SECONDS)
    def try_it(ask: str = "", user: str = "") -> None:
        with frame(client, "/", "Try it", "Choose a user, change what they have met or what is asked for, and see how the list follows."):
            TryIt(client, visits, Question.of_address(ask, user)).build()

    @ui.page("/why", response_timeout=BUILD_SECONDS)
    def why(ask: str = "", user: str = "") -> None:
        lead = "Every prefix that the search considered, with the model's numbers: what was kept, drafted and cut."
        with frame(client, "/why", "Why this list", lead):
            Why(client, visits, Question.of_address(ask, user)).build()

    @ui.page("/operate", response_timeout=BUILD_SECONDS)
    def operate() -> None:
        with frame(client, "/operate", "Operate", "What the server does now, and what it recommends from."):
            build_operate(client, visits)

    @ui.page("/items", response_timeout=BUILD_SECONDS)
    def items(item: str = "") -> None:
        with frame(client, "/items", "Items", "Find an item, and see where it stands: in the trie of identifiers, and in lists."):
            Items(client, visits, item).build()
