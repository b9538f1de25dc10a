"""The HTTP app, built from the parts of a server."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from server.catalogs.tidying import watch_files
from server.control.follower import END_SECONDS, RETRY_SECONDS, Follower
from server.engine.supervisor import EngineStatus
from server.errors import ServerError
from server.http import problems
from server.http.console import CONSOLE, ConsoleProcess, add_console
from server.http.json_body import ShortWays
from server.http.middleware import ExchangeMiddleware, TraceMiddleware
from server.http.pages import DOCS, add_pages
from server.http.routes.catalogs import catalog_routes
from server.http.routes.control import control_routes
from server.http.routes.filters import filter_routes
from server.http.routes.items import item_routes
from server.http.routes.recommendations import recommendation_routes
from server.http.routes.scores import score_routes
from server.http.routes.status import status_routes
from server.http.routes.users import user_routes
from server.http.strict_route import SCHEME
from server.services import Services
from server.try_again import ControlUnavailable

logger = logging.getLogger(__name__)

DESCRIPTION = """Generative recommendation: a user's history goes in, the most likely next items of the catalog come out.

Errors are [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem details; `detail` is a sentence. `X-Request-Id` is echoed."""
# Headers of every answer that the app makes.
HEADERS = {
    "X-Request-Id": {
        "description": "That of the request, if it is of at most 128 printable characters of ASCII, else a new one. Log lines end in it.",
        "schema": {"type": "string"},
    },
    "X-Control-Revision": {
        "description": "The revision of the control store that the server had applied, or the one that the request wrote.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "X-Control-Behind": {
        "description": "Seconds for which the server can't know what others have written; only if it is longer than it should be.",
        "schema": {"type": "number", "minimum": 0},
    },
}
KEY_DESCRIPTION = "A key of the server's file of keys (`atspeed keys add`). Which of its scopes an operation needs stands beside it."


class _Api(FastAPI):
    """An app whose document says which headers its answers have, and how a key is sent, if keys are asked for."""

    has_keys = False

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema:
            return self.openapi_schema
        document = super().openapi()
        document["components"]["headers"] = HEADERS
        for operation in (each for methods in document["paths"].values() for each in methods.values()):
            for status, answer in operation["responses"].items():
                if status != "default":
                    answer["headers"] = answer.get("headers", {}) | {name: {"$ref": f"#/components/headers/{name}"} for name in HEADERS}
        if self.has_keys:
            document["components"]["securitySchemes"] = {SCHEME: {"type": "http", "scheme": "bearer", "description": KEY_DESCRIPTION}}
        return document


def build_api(services: Services, console: ConsoleProcess | None = None) -> FastAPI:
    """Build the routes, with their documentation; the engine, and the console if there is one, run as long as the app's lifespan."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        services.engine.supervisor.watch = services.guard
        watches = [
            asyncio.create_task(_follow(services), name="follower"),
            asyncio.create_task(watch_files(services.catalogs), name="files"),
            asyncio.create_task(services.announcer.announce(), name="announcer"),
            asyncio.create_task(services.overview.watch(), name="overview"),
            asyncio.create_task(services.metrics.watch_loop(), name="loop watch"),
            asyncio.create_task(services.guard.watch(), name="guard"),
            asyncio.create_task(services.soundness.watch(), name="soundness"),
            asyncio.create_task(services.prompts.watch(), name="prompts"),
        ]
        if services.keys is not None:
            watches.append(asyncio.create_task(services.keys.watch(), name="keys"))
        for watch in watches:
            watch.add_done_callback(_log_failure)
        if console is not None:
            console.start()
        try:
            yield
        finally:
            for watch in watches:
                watch.cancel()
            if console is not None:
                await console.stop()
            await services.engine.supervisor.stop()
            services.guard.end()
            await _leave(services.catalogs.follower)
            await services.histories.close()
            if services.rates is not None:
                await services.rates.close()
            services.catalogs.files.close()
            # It may wait for a collector, which would hold up the loop.
            await asyncio.to_thread(services.tracing.close)

    api = _Api(
        title="atspeed-server",
        version=version("atspeed-server"),
        description=DESCRIPTION,
        lifespan=lifespan,
        responses=problems.ANY_ERROR,
        # A redirect is an answer that no operation documents.
        redirect_slashes=False,
        # FastAPI's own load their scripts from the internet.
        docs_url=None,
        redoc_url=None,
    )
    api.has_keys = services.gate.has_keys
    problems.install(api)
    add_pages(api, DOCS if console is None else CONSOLE)
    if console is not None:
        add_console(api, console.port)
    # They are tried in this order: what is asked most comes first.
    for router in (
        recommendation_routes(services),
        score_routes(services),
        user_routes(services),
        filter_routes(services),
        catalog_routes(services),
        item_routes(services),
        control_routes(services),
        status_routes(services),
    ):
        api.include_router(router)
    return api


def build_app(services: Services, console: ConsoleProcess | None = None) -> ASGIApp:
    """Build the whole app, as a server runs it."""
    api = build_api(services, console)
    app: ASGIApp = ShortWays(api)
    if services.tracing.on:
        app = TraceMiddleware(app, services.tracing)
    return ExchangeMiddleware(
        app,
        services.metrics,
        services.settings.body_seconds,
        services.settings.catalog_max_gib,
        services.catalogs.follower,
        services.settings.timeout_ms / 1000,
        services.drain,
    )


async def _follow(services: Services) -> None:
    """Begin with the version that is to be served, as soon as it is known, start the engine with it, and do what is written, for ever."""
    follower, supervisor = services.catalogs.follower, services.engine.supervisor
    supervisor.status, follower.problem, follower.begun = EngineStatus.STARTING, "The control store has not been read yet.", False
    try:
        await _begin(services)
        supervisor.start()
        await follower.follow()
    finally:
        follower.has_ended = True


async def _begin(services: Services) -> None:
    """Begin, however often that has to be tried."""
    follower, failed = services.catalogs.follower, services.metrics.control.begin_failed
    while True:
        try:
            await services.replica.begin()
            break
        except ServerError as error:
            logger.error("this server can't begin yet: %s", error)
            follower.problem = f"It can't begin yet: {error}"
            failed.set(1)
        await asyncio.sleep(RETRY_SECONDS)
    follower.begun = True
    failed.set(0)


async def _leave(follower: Follower) -> None:
    """Write what is still to be written, and tell the others that this server is gone."""
    await follower.end()
    with suppress(ControlUnavailable, TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await follower.store.withdraw(follower.name)
    await follower.store.close()


def _log_failure(watch: "asyncio.Task[None]") -> None:
    """Log the failure of a task that should go on for ever: nothing waits for it, so nothing else would tell of it."""
    if not watch.cancelled() and (error := watch.exception()) is not None:
        logger.error("the task %r has failed, and no longer watches", watch.get_name(), exc_info=error)
