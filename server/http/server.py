"""The API process from its start to its end: check the settings, make the parts, run uvicorn.

Invariant: what can't work is found before anything else is started, or ends the server as soon as the engine finds it, and is one sentence.
SIGTERM and Ctrl-C are a clean end: `/ready` answers 503, requests that were taken are answered (within a grace period), then the engine
process stops. A second signal does not wait.
"""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from drafting.catalog.catalog import CatalogError
from drafting.catalog.codebooks import Codebooks
from drafting.catalog.forms import TORCH_SUFFIXES
from drafting.catalog.loading import load_catalog
from server.catalogs.files import VersionFiles, open_objects
from server.catalogs.served import ServedCatalog
from server.catalogs.store import CatalogStore
from server.control import ControlStore, open_control_store
from server.control.follower import SETTLE_SECONDS, Follower
from server.control.names import replica_name
from server.engine.client import EngineClient
from server.engine.directory import own_directory
from server.engine.heartbeat import Patience
from server.histories import HistoryStore, open_history_store
from server.http.app import build_app
from server.http.connections import Connections
from server.http.console import ConsoleProcess, check_installed
from server.http.handshake import HandshakeProtocol
from server.http.limited_config import LimitedConfig
from server.http.limited_server import LimitedServer, allow_files
from server.http.listening import PortError, listen, url_of
from server.http.protocol import LimitedProtocol
from server.http.tls import Certificate, certificate_of
from server.http.unauthorized import Unauthorized
from server.keys.gate import is_loopback
from server.keys.keyring import Keyring
from server.keys.rates import Rates
from server.lists.blend import check_known, load_neighbours
from server.lists.cold_start import load_popularity
from server.metrics.logs import configure_logs
from server.metrics.registry import Metrics
from server.metrics.tracing import Tracing
from server.scheduling.drain import Drain
from server.services import Services
from server.settings import Settings

logger = logging.getLogger(__name__)

# Time after the recommendations for other requests, such as events that are being stored.
LAST_SECONDS = 5
# Objects that are made and not yet freed, among which reference cycles are looked for.
COLLECT_AFTER = 20_000


class ApiServer:
    """One server: uvicorn around the app, ended by a signal or by an engine that can't start."""

    def __init__(self, settings: Settings) -> None:
        """Make the parts of the server and bind the port.

        Raises:
            CatalogError, PortError: the catalog or the address can't be used.
            ValueError: a directory is missing, the URL of the versions or that of the histories makes no sense, the catalog is a torch
                file, codebooks, neighbour model, list of popular items or keys can't be used.
        """
        self.failure: str | None = None
        kept = _catalogs_directory(settings)
        objects = open_objects(settings.catalogs_url)
        _check(settings)
        popularity = load_popularity(settings)
        metrics = Metrics()
        keys = None if settings.keys is None else Keyring(settings.keys, metrics.keys)
        rates = None if keys is None else Rates(settings.control_url, metrics.keys, settings.control_prefix)
        neighbours = load_neighbours(settings)
        start = load_catalog(settings.catalog)
        own = ServedCatalog(start.version, "", settings.catalog.absolute(), start)
        own.learn_neighbours(neighbours)
        check_known(own.neighbours, settings)
        certificate = certificate_of(settings.tls_cert, settings.tls_key)
        self._scheme = "http" if certificate is None else "https"
        self._listeners = _listen(settings)
        console = None
        if settings.console:
            listener = listen(settings.host, settings.console_port, "--console-port")
            console = ConsoleProcess(listener, self._listeners[-1], settings)
            logger.info("the console is at %s", url_of(self._scheme, settings.host, console.port))
        try:
            histories, control = _open_stores(settings, metrics)
        except ValueError:
            for listener in self._listeners:
                listener.close()
            raise
        engine = EngineClient(
            settings.engine_options,
            start.version,
            metrics,
            max_pending=settings.max_running + settings.max_waiting,
            patience=Patience(settings.engine_hang_seconds, settings.engine_start_seconds),
            on_failure=self._give_up,
        )
        # Gone with the server, unless there is a directory that outlives it.
        self._temporary = ExitStack()
        # Replicas of a Redis run on any machine.
        anywhere = settings.control_url.startswith("redis")
        directory = (kept or self._temporary.enter_context(own_directory())).absolute()
        files = VersionFiles(directory, objects, is_shared=anywhere and settings.catalogs is not None)
        follower = Follower(control, replica_name(), settle_seconds=SETTLE_SECONDS if anywhere else 0)
        catalogs = CatalogStore(own, engine, files, follower, neighbours, private_files=anywhere and settings.catalogs is None)
        operate_port = None if settings.operate_port is None else self._listeners[-1].getsockname()[1]
        tracing = Tracing.to(settings.otlp_endpoint)
        services = Services(settings, catalogs, engine, histories, metrics, Drain(), tracing, popularity, keys, rates, operate_port)
        self._engine, self._drain, self._guard, self._grace_seconds = engine, services.drain, services.guard, settings.grace_seconds
        self._ending: asyncio.Task[None] | None = None
        self._has_keys = keys is not None
        allow_files(settings.max_connections)
        self._uvicorn = _Uvicorn(_config(services, console, certificate), self._end, self._give_up_requests)

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or a failed start of the engine."""
        # uvicorn sets these handlers too, but raises the signal again when it is done, which without this would end the process with it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._uvicorn.handle_exit)
        host = self._listeners[0].getsockname()[0]
        address, *more = (url_of(self._scheme, host, each.getsockname()[1]) for each in self._listeners)
        logger.info("listening on %s, loading the model", address)
        for each in more:
            logger.info("operations are at %s", each)
        if not self._has_keys and not is_loopback(host):
            logger.warning(
                "other machines get lists, scores and items of the catalog only: for the rest, make a key with "
                "`atspeed keys add keys.json --name NAME --scope …` and start with --keys keys.json"
            )
        # What is imported stays for ever: the collector need not walk through it between two requests. What a request makes goes with its
        # last reference: there is little to collect, and it is looked for less often than between every few requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])
        with self._temporary:
            self._uvicorn.run(sockets=self._listeners)
        # Libraries complain at the end of the process about what the collector could not reach.
        gc.unfreeze()

    def _give_up(self, sentence: str) -> None:
        self.failure = sentence
        self._uvicorn.should_exit = True

    def _end(self) -> None:
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._drain_and_exit(), name="drain")

    async def _drain_and_exit(self) -> None:
        """Let running requests finish within the grace period; then answer the others with an error."""
        self._drain.begin()
        # Killed from now on, as it may be where that takes long, it was not killed by the version that it serves.
        self._guard.end()
        logger.info("shutting down; requests that are running: %d", self._drain.running)
        if not await self._drain.finished(self._grace_seconds):
            logger.warning("requests that did not finish within %g s are given up: %d", self._grace_seconds, self._drain.running)
            self._give_up_requests()
        self._uvicorn.should_exit = True

    def _give_up_requests(self) -> None:
        self._engine.abandon("The server is shutting down.")


def _check(settings: Settings) -> None:
    """Refuse files that can't be served from, and a console that is not installed.

    Raises:
        ValueError: as this says.
    """
    if not settings.target.is_dir():
        raise ValueError(f"There is no model directory {settings.target}.")
    if settings.codebooks is not None:
        Codebooks.load(settings.codebooks)
    if settings.catalog.suffix in TORCH_SUFFIXES:
        # This process never loads torch.
        raise ValueError(f"{settings.catalog} is a torch file: write it as one to serve from, with `atspeed catalog convert`.")
    if settings.console:
        check_installed()


def _listen(settings: Settings) -> list[socket.socket]:
    """The sockets of the server: that of the API, and that of operations where they have a port of their own. Raises PortError."""
    listeners = [listen(settings.host, settings.port)]
    if settings.operate_port is not None:
        listeners.append(listen(settings.host, settings.operate_port, "--operate-port"))
    return listeners


def _open_stores(settings: Settings, metrics: Metrics) -> tuple[HistoryStore, ControlStore]:
    """The stores of the server, both or none.

    Raises:
        ValueError: a URL makes no sense, or a file can't be used.
    """
    histories = open_history_store(
        settings.histories,
        timeout_seconds=settings.history_timeout_ms / 1000,
        max_events=settings.history_max_events,
        ttl_seconds=settings.history_ttl_seconds,
        on_damage=metrics.observe_damage,
    )
    try:
        return histories, open_control_store(settings.control_url, key_prefix=settings.control_prefix)
    except ValueError:
        asyncio.run(histories.close())
        raise


def _config(services: Services, console: ConsoleProcess | None, certificate: Certificate | None) -> LimitedConfig:
    """How uvicorn serves the app."""
    return LimitedConfig(
        build_app(services, console),
        Connections(services.settings, services.metrics),
        certificate,
        Unauthorized(services.gate, services.metrics, services.catalogs.follower) if services.gate.has_keys else None,
        http=LimitedProtocol if certificate is None else HandshakeProtocol,
        log_config=None,
        # Its warnings are one for each malformed request, which metrics count.
        log_level="error",
        access_log=False,
        lifespan="on",
        ws="none",
        # Who asks is judged by the connection, and by whether such headers are there at all (`server.keys.gate`).
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=LAST_SECONDS,
    )


def _catalogs_directory(settings: Settings) -> Path | None:
    """Where the versions' files are on this machine, if they outlive the server.

    Raises:
        ValueError: there is no such directory, or it can't be made.
    """
    if settings.catalog_cache is not None:
        if settings.catalogs_url is None:
            raise ValueError(
                "--catalog-cache is for --catalogs in an object store: leave it out, or name a URL such as s3://bucket/prefix."
            )
        try:
            settings.catalog_cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"The directory {settings.catalog_cache} of --catalog-cache can't be made: {error.strerror}.") from error
    directory = settings.catalogs_directory
    if directory is not None and not directory.is_dir():
        raise ValueError(f"There is no directory {directory} for versions of the catalog.")
    return directory


class _Uvicorn(LimitedServer):
    """uvicorn with other handling of signals: the first begins a clean end, a second waits for no request that runs."""

    def __init__(self, config: LimitedConfig, end: Callable[[], None], hurry: Callable[[], None]) -> None:
        super().__init__(config)
        self._end, self._hurry = end, hurry
        self.ending = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None or not self.started:
            super().handle_exit(sig, frame)
            return
        # A signal comes between any two instructions of the loop's thread; what it starts must wait for its turn.
        if self.ending:
            self._loop.call_soon_threadsafe(self._hurry)
            super().handle_exit(sig, frame)
        else:
            self.ending = True
            self._loop.call_soon_threadsafe(self._end)


def run_server(settings: Settings, unknown: Sequence[str] = ()) -> str | None:
    """Serve until stopped; return the error as a sentence, or None after a clean end.

    Args:
        unknown: variables of the environment that look like settings and are none.
    """
    configure_logs(settings.log_level, "api", settings.log_format)
    if unknown:
        logger.warning("no setting of this server has such a name, see `atspeed serve --help`: %s", ", ".join(unknown))
    try:
        server = ApiServer(settings)
    except (CatalogError, PortError, ValueError) as error:
        return str(error)
    server.run()
    return server.failure
