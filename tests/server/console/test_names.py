"""A console that listens on this machine alone answers to no other name, so that no page from elsewhere acts with its key."""

import socket
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect
from typer.testing import CliRunner

from server.commands.app import app as atspeed
from server.console.names import OwnNames, checked_names
from server.console.process import guarded
from server.settings import ConsoleOptions

OWN = ["localhost:8001", "127.0.0.1:8001", "[::1]:8001", "LOCALHOST", "console.example", "console.example:443"]
FOREIGN = ["rebound.example:8001", "127.0.0.1.rebound.example", "10.0.0.7:8001", "other.console.example", ""]


async def _page(request: Any) -> PlainTextResponse:
    return PlainTextResponse("a page")


async def _echo(opened: WebSocket) -> None:
    await opened.accept()
    await opened.close()


def console() -> ASGIApp:
    app = Starlette(routes=[Route("/", _page), WebSocketRoute("/socket", _echo)])
    options = ConsoleOptions(url="http://127.0.0.1:8000", names=checked_names(["Console.example"]))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return guarded(app, options, listener)


@pytest.mark.parametrize("host", OWN)
def test_pages_are_for_those_who_call_it_by_its_names(host: str):
    client = TestClient(console(), headers={"Host": host})
    assert client.get("/").text == "a page"
    with client.websocket_connect("/socket", headers={"Host": host, "Origin": f"http://{host}"}):
        pass


@pytest.mark.parametrize("host", FOREIGN)
def test_pages_and_sockets_are_refused_by_any_other_name(host: str):
    client = TestClient(console(), headers={"Host": host})
    refused = client.get("/")
    assert (refused.status_code, refused.text.startswith("This console is not for pages of ")) == (403, True)
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket", headers={"Host": host}):
        pass


@pytest.mark.parametrize("origin", ["http://page.example", "null", "https://localhost.page.example:8001"])
def test_a_page_from_elsewhere_opens_no_socket(origin: str):
    client = TestClient(console(), headers={"Host": "localhost:8001", "Origin": origin})
    assert client.get("/").status_code == 403
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket"):
        pass


def test_a_console_is_held_to_its_names_where_pages_could_gain_by_others():
    alone, beside = ConsoleOptions(url="http://127.0.0.1:8000"), ConsoleOptions(url="http://127.0.0.1:8000", parent=1)
    named = ConsoleOptions(url="http://127.0.0.1:8000", names=("console.example",))
    with socket.create_server(("127.0.0.1", 0)) as here, socket.create_server(("0.0.0.0", 0)) as anywhere:
        for listener, held in ((here, [True, True, False]), (anywhere, [False, True, False])):
            assert [isinstance(guarded(Starlette(), options, listener), OwnNames) for options in (alone, named, beside)] == held


@pytest.mark.parametrize("name", ["http://console.example", "console.example:8001", "console.example/console", "", "*.example"])
def test_what_is_no_name_is_refused_in_a_sentence(name: str):
    with pytest.raises(ValueError, match=r"is no name of a machine"):
        checked_names([name])
    assert checked_names(["::1", "10.0.0.7"]) == ("::1", "10.0.0.7")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--name", "http://console.example"], "is no name of a machine"),
        (["--url", "127.0.0.1:8000"], "is not the URL of a server"),
        (["--url", "http://a:80a"], "is not the URL of a server"),
    ],
)
def test_a_console_that_can_not_be_is_refused_at_its_start(flags: list[str], sentence: str):
    ended = CliRunner().invoke(atspeed, ["console", "--port", "0", *flags])
    assert (ended.exit_code, sentence in " ".join(ended.output.split())) == (1, True)
