"""The console as a program: its pages in one app, served by uvicorn.

Invariant: browsers are told to load nothing from another host, by the header Content-Security-Policy; with `remote_images` pictures may.
"""

import socket
from collections.abc import Awaitable, Callable

import uvicorn
from fastapi import FastAPI, Request, Response
from nicegui import ui

from server.console.pages import add_pages
from server.http.tls import FollowingServer, certificate_of
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


def run_console(options: ConsoleOptions, listener: socket.socket) -> None:
    """Serve a console on a bound socket until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        build_console(options),
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )
    FollowingServer(config, certificate_of(options.tls_cert, options.tls_key)).run(sockets=[listener])
