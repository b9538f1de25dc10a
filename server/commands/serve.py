"""`atspeed serve`: the HTTP server."""

import logging
import os
from collections.abc import Iterable

import typer

from server.commands.options import takes_settings
from server.commands.terminal import fail
from server.settings import Settings

logger = logging.getLogger(__name__)

_PREFIX = "ATSPEED_"
# Names behind the prefix that are no settings: clients read the key, and whatever keeps what it has made reads the cache.
_OTHERS = frozenset({"KEY", "KEY_FILE", "CACHE"})


@takes_settings()
def serve(settings: Settings) -> None:
    """Serve recommendations over HTTP.

    Example: atspeed serve --target models/beauty --catalog beauty.index.json --histories redis://localhost:6379/0

    Every flag is also an environment variable; the log tells those that begin with ATSPEED_ and are none. The API is described at /docs
    once the server runs.
    """
    # FastAPI and uvicorn take half a second to import, which `atspeed --help` need not pay.
    from server.http.server import run_server

    if sentence := run_server(settings, unknown_variables(os.environ)):
        if settings.log_format == "text":
            fail(sentence)
        # A program reads standard error then, which is to find nothing but objects there.
        logger.error("the server has ended: %s", sentence)
        raise typer.Exit(1)


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Of the names of environment variables those that look like a setting and are none; a misspelt flag would be refused."""
    settings = {name.upper() for name in Settings.model_fields} | _OTHERS
    return sorted(name for name in names if name.upper().startswith(_PREFIX) and name.upper().removeprefix(_PREFIX) not in settings)
