"""*Operate*: all that an operator looks at and changes, on one page."""

from server.client import AsyncAtspeedClient
from server.console.elements import tag
from server.console.operate.events import Events
from server.console.operate.filters import Filters
from server.console.operate.live import Live
from server.console.operate.new_items import NewItem
from server.console.operate.versions import Versions
from server.console.visits import Visits


def build_operate(client: AsyncAtspeedClient, visits: Visits) -> None:
    """Make the page's parts."""

    async def changed() -> None:
        """Show anew what depends on the version that is served: filters leave others of its items."""
        await versions.load()
        await filters.load()

    Live(client)
    with tag("div", "", "columns"):
        with tag("div", "", "stack"):
            versions = Versions(client, changed)
            NewItem(client, changed)
        with tag("div", "", "stack"):
            filters = Filters(client)
            Events(client, visits)
