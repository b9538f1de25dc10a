"""`atspeed serve`: the HTTP server."""

import logging

import typer

from server.commands.options import takes_settings
from server.commands.terminal import fail
from server.settings import Settings

logger = logging.getLogger(__name__)


@takes_settings()
def serve(settings: Settings) -> None:
    """Serve recommendations over HTTP.

    Example: atspeed serve --target models/beauty --catalog beauty.index.json --histories redis://localhost:6379/0

    Every flag is also an environment variable. The API is described at /docs once the server runs.
    """
    # FastAPI and uvicorn take half a second to import, which `atspeed --help` need not pay.
    from server.http.server import run_server

    if sentence := run_server(settings):
        if settings.log_format == "text":
            fail(sentence)
        # A program reads standard error then, which is to find nothing but objects there.
        logger.error("the server has ended: %s", sentence)
        raise typer.Exit(1)
