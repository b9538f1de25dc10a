"""The console beside a server: a process of its own, started and watched here, and the path `/console`, which leads there.

Invariant: this process imports nothing of the console and makes no page of it, so a console that is slow, hangs or dies changes no list.
The socket is bound here, once: the address stays the same from one console process to the next, and browsers wait in its queue meanwhile.
"""

import asyncio
import logging
import os
import socket
import sys
import time
from contextlib import suppress
from importlib.util import find_spec

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse

from server.engine.backoff import Backoff
from server.engine.parent import child_environment
from server.http.listening import url_of
from server.settings import ConsoleOptions, Settings

logger = logging.getLogger(__name__)

CONSOLE = "/console"
MODULE = "server.console"
LIBRARY = "nicegui"
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
STOP_SECONDS = 3.0


def is_installed() -> bool:
    """Whether the console's library is there; looks without importing it."""
    return find_spec(LIBRARY) is not None


def check_installed() -> None:
    """Raise ValueError if the console's library is not there."""
    if not is_installed():
        raise ValueError("The console needs the extra 'console': pip install 'atspeed-server[console]'.")


class ConsoleProcess:
    """One console process after the other, as long as the server runs."""

    def __init__(self, listener: socket.socket, server: socket.socket, settings: Settings) -> None:
        """`listener` is the bound socket of the console, `server` that of the server, whose address it is given."""
        self._listener = listener
        host, port = server.getsockname()[:2]
        # A server that listens on all addresses is asked on the loopback one.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self._options = ConsoleOptions(
            url=url_of("http" if settings.tls_cert is None else "https", host, port),
            parent=os.getpid(),
            tls_cert=settings.tls_cert,
            tls_key=settings.tls_key,
            log_level=settings.log_level,
            log_format=settings.log_format,
        )
        self._watching: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that browsers find it at."""
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Start it, and another whenever one ends."""
        self._watching = asyncio.create_task(self._watch(), name="console")

    async def stop(self) -> None:
        """End it."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        self._listener.close()

    async def _watch(self) -> None:
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while True:
            started = time.monotonic()
            try:
                end = f"has ended with status {await self._run_once()}"
            except OSError as error:
                end = f"can't be started: {error}"
            pause = backoff.after(time.monotonic() - started)
            logger.error("the console %s; starting another in %g s", end, pause)
            await asyncio.sleep(pause)

    async def _run_once(self) -> int:
        """Run one console process to its end; its exit status."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", MODULE, str(self._listener.fileno()), self._options.model_dump_json()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sys.stderr,
            env=child_environment(),
            pass_fds=[self._listener.fileno()],
            start_new_session=True,
        )
        try:
            return await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
            raise


def add_console(api: FastAPI, port: int) -> None:
    """Add the path that leads to a console on a port of the same host; what is behind its question mark goes along."""

    async def to_console(request: Request) -> RedirectResponse:
        return RedirectResponse(str(request.url.replace(port=port, path="/")))

    api.add_route(CONSOLE, to_console, include_in_schema=False)
