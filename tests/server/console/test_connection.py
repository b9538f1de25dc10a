"""Connections to a console are counted and ended as those to the server, whether they are WebSockets or not."""

import asyncio
import base64
import math
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from server.console import process
from server.console.connection import ConsoleLimits, ConsoleProtocol, CountedWebSocket
from server.console.names import OwnNames
from server.http.connections import Connections
from server.http.limited_config import LimitedConfig
from server.http.limited_server import LimitedServer
from server.http.listening import listen
from server.metrics.registry import Metrics
from server.settings import ConsoleOptions

UPGRADE = (
    "GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n"
).encode()
PATIENCE_SECONDS = 20


def test_what_is_installed_beside_the_project_has_the_protocol_with_pings():
    """uvicorn has the protocol since 0.35, and its pings, without which a page that went away keeps its place, since 0.44."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    (uvicorn,) = (each for line in project["dependencies"] if (each := Requirement(line)).name == "uvicorn")
    assert uvicorn.extras == {"standard"}
    assert not {*uvicorn.specifier.filter(["0.34.3", "0.35.0", "0.43.0"])}
    assert uvicorn.specifier.contains("0.44.0")


async def _hold(opened: WebSocket) -> None:
    await opened.accept()
    try:
        while True:
            await opened.receive_text()
    except WebSocketDisconnect:
        pass


@asynccontextmanager
async def serving(limits: ConsoleLimits) -> AsyncIterator[tuple[int, Connections]]:
    connections = Connections(limits, Metrics())
    app = Starlette(routes=[WebSocketRoute("/socket", _hold)])
    options = {"http": ConsoleProtocol, "ws": CountedWebSocket, "lifespan": "off", "log_config": None, "log_level": "error"}
    with listen("127.0.0.1", 0) as listener:
        server = LimitedServer(LimitedConfig(app, connections, **options))
        task = asyncio.create_task(server.serve([listener]))
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield listener.getsockname()[1], connections
            server.should_exit = True
            await task


async def test_a_websocket_keeps_the_place_of_its_connection():
    async with serving(ConsoleLimits(max_connections_per_client=2)) as (port, connections):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, writer in held:
            writer.write(UPGRADE)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        places = list(connections._open)
        assert [type(each) for each in places] == [CountedWebSocket, CountedWebSocket]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        writer.close()
        # It is ended when its client does not read, and then there is room.
        places[0].end(math.inf)
        while connections._open != {places[1]}:
            await asyncio.sleep(0)
        reader, last = await asyncio.open_connection("127.0.0.1", port)
        last.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
        last.close()
        for _, writer in held:
            writer.close()
        while connections._open:
            await asyncio.sleep(0)
        assert not connections._clients


def test_the_console_is_run_with_these_limits_and_by_its_own_names(monkeypatch: pytest.MonkeyPatch):
    configs: list[LimitedConfig] = []
    monkeypatch.setattr(process, "build_console", lambda options: Starlette())
    monkeypatch.setattr(process, "allow_files", lambda files: None)
    monkeypatch.setattr(process, "LimitedServer", lambda config: configs.append(config) or SimpleNamespace(run=lambda sockets: None))
    with listen("127.0.0.1", 0) as listener:
        process.run_console(ConsoleOptions(url="http://127.0.0.1:8000"), listener)
    (config,) = configs
    assert (config.http, config.ws) == (ConsoleProtocol, CountedWebSocket)
    assert isinstance(config.app, OwnNames)
    assert config.client_connections.idle_seconds == ConsoleLimits().idle_seconds
