"""The console as a program: its pages in one app, served by uvicorn with limits of connections.

Invariant: browsers are told to load nothing from another host, by the header Content-Security-Policy; with `remote_images` pictures may.
"""

import socket
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from nicegui import ui
from starlette.types import ASGIApp

from server.console.connection import ConsoleHandshake, ConsoleLimits, ConsoleProtocol, CountedWebSocket
from server.console.names import OwnNames
from server.console.pages import add_pages
from server.http.connections import Connections
from server.http.limited_config import LimitedConfig
from server.http.limited_server import LimitedServer, allow_files
from server.http.tls import certificate_of
from server.keys.gate import is_loopback
from server.metrics.registry import Metrics
from server.settings import ConsoleOptions

TITLE = "atspeed console"
# Vue compiles its templates in the browser.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "frame-ancestors 'none'; img-src {images}"
)
ICON = "⚡"


def build_console(options: ConsoleOptions) -> FastAPI:
    """Build the app of a console."""
    app = FastAPI(title=TITLE, docs_url=None, redoc_url=None, openapi_url=None)
    policy = POLICY.format(images="* data:" if options.remote_images else "'self' data:")

    @app.middleware("http")
    async def protect(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await go_on(request)
        response.headers["Content-Security-Policy"] = policy
        return response

    add_pages(options)
    ui.run_with(
        app, title=TITLE, favicon=ICON, dark=None, language="en-US", tailwind=False, show_welcome_message=False, reconnect_timeout=30
    )
    return app


def guarded(app: ASGIApp, options: ConsoleOptions, listener: socket.socket) -> ASGIApp:
    """The app, for browsers that call it by its own names where others could gain by another.

    A console that a server has started has no key and trusts no machine, so there is nothing that pages from elsewhere could gain by it,
    and proxies in front may call it as they like.
    """
    if options.parent is None and (options.names or is_loopback(listener.getsockname()[0])):
        return OwnNames(app, options.names)
    return app


def run_console(options: ConsoleOptions, listener: socket.socket) -> None:
    """Serve a console on a bound socket until SIGTERM or SIGINT."""
    limits, certificate = ConsoleLimits(), certificate_of(options.tls_cert, options.tls_key)
    # Pages have connections to the server as well.
    allow_files(4 * limits.max_connections)
    config = LimitedConfig(
        guarded(build_console(options), options, listener),
        Connections(limits, Metrics()),
        certificate,
        http=ConsoleProtocol if certificate is None else ConsoleHandshake,
        ws=CountedWebSocket,
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    LimitedServer(config).run(sockets=[listener])
