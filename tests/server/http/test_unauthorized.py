"""Requests without a key that is known, as bytes to a real server: answered before the app hears of them, and in their turn."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import httpx
import pytest

from server.keys.file import add_key
from server.keys.key import Scope
from tests.server.forked_server import ForkedServer
from tests.server.http.test_connections import assert_ended, rest

UNKNOWN, MISSING = "urn:atspeed:key-unknown", "urn:atspeed:key-missing"
WRONG = b"Authorization: Bearer atspeed_wrong\r\n"
PIECE_SECONDS = 20.0


@pytest.fixture(scope="module")
def guarded(model_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServer]:
    """A server with a key, whose holder its client is; it is not ready, as nothing here is about lists."""
    folder = tmp_path_factory.mktemp("guarded")
    text = add_key(folder / "keys.json", "shop", [Scope.RECOMMEND])
    with ForkedServer(folder, *model_flags, "--histories", "memory://", "--keys", str(folder / "keys.json")) as server:
        server.client.headers["Authorization"] = f"Bearer {text}"
        with server.without_engine():
            yield server


Connect = Callable[[], socket.socket]


@pytest.fixture
def connect(guarded: ForkedServer) -> Iterator[Connect]:
    with ExitStack() as stack:

        def opened() -> socket.socket:
            address = ("127.0.0.1", httpx.URL(guarded.url).port)
            return stack.enter_context(closing(socket.create_connection(address, timeout=PIECE_SECONDS)))

        yield opened


def request(method: str, path: str, headers: bytes = WRONG, body: bytes = b"", version: str = "1.1") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: localhost\r\n".encode() + headers + b"\r\n" + body


def responses(connection: socket.socket, *methods: str) -> list[httpx.Response]:
    """The responses to so many requests, in order."""
    found = []
    with connection.makefile("rb") as file:
        for method in methods:
            status = int(file.readline().split()[1])
            headers = [tuple(line.rstrip().split(b": ", 1)) for line in iter(file.readline, b"\r\n")]
            length = 0 if method == "HEAD" else int(dict(headers)[b"content-length"])
            found.append(httpx.Response(status, headers=headers, content=file.read(length)))
    return found


def test_the_answer_is_that_of_the_app_and_is_counted(guarded: ForkedServer, connect: Connect):
    def counted() -> list[float]:
        answers = guarded.metric("atspeed_http_responses_total", method="GET", route="unmatched", status="401")
        return [answers, *(guarded.metric("atspeed_keyless_refusals_total", reason=reason) for reason in ("unknown", "missing"))]

    before = counted()
    connection = connect()
    connection.sendall(request("GET", "/v1/users/a%20b/history?x=%C3%BC", WRONG + b"X-Request-Id: asked-7\r\nX-Min-Revision: 99\r\n"))
    connection.sendall(request("GET", "/v1/nowhere", b""))
    connection.sendall(request("HEAD", "/v1/catalog", b"Authorization: Basic eDp5\r\n"))
    unknown, missing, head = responses(connection, "GET", "GET", "HEAD")
    assert {response.status_code for response in (unknown, missing, head)} == {401}
    sentence = "This server does not know the key that the header Authorization brings."
    assert unknown.json() == {
        "type": UNKNOWN,
        "title": "Key unknown",
        "status": 401,
        "detail": sentence,
        "instance": "/v1/users/a b/history",
    }
    assert (missing.json()["type"], missing.json()["instance"]) == (MISSING, "/v1/nowhere")
    assert unknown.headers["www-authenticate"] == 'Bearer realm="atspeed", error="invalid_token"'
    assert missing.headers["www-authenticate"] == head.headers["www-authenticate"] == 'Bearer realm="atspeed"'
    assert unknown.headers["x-request-id"] == "asked-7"
    assert len(missing.headers["x-request-id"]) == 32
    app = guarded.client.get("/v1/users/a/history")
    assert app.status_code == 403
    differ = {"content-length", "www-authenticate"}
    assert set(unknown.headers) - differ == set(missing.headers) - differ == set(app.headers) - differ
    assert {name: unknown.headers[name] for name in ("content-type", "x-content-type-options", "x-control-revision")} == {
        name: app.headers[name] for name in ("content-type", "x-content-type-options", "x-control-revision")
    }
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [2, 1, 2]


def test_what_needs_no_key_and_who_has_one_pass_on_the_same_connection(guarded: ForkedServer, connect: Connect):
    held = f"Authorization: {guarded.client.headers['Authorization']}\r\n".encode()
    connection = connect()
    # Pipelined: a refusal must neither overtake the answer before it nor keep the next.
    pieces = [request("GET", path, each) for path, each in (("/version", WRONG), ("/v1/catalog", WRONG), ("/v1/catalog/items", held))]
    connection.sendall(b"".join(pieces * 3))
    assert [response.status_code for response in responses(connection, *["GET"] * 9)] == [200, 401, 200] * 3


def test_hundreds_of_pipelined_wrong_keys_are_answered_each(connect: Connect):
    connection = connect()
    connection.sendall(request("GET", "/v1/catalog", WRONG + b"X-Request-Id: a\r\n") * 100)
    assert [response.status_code for response in responses(connection, *["GET"] * 100)] == [401] * 100


@pytest.mark.parametrize("pause", [False, True], ids=["at once", "in pieces"])
@pytest.mark.parametrize(
    ("headers", "body"),
    [(b"Content-Length: 300000\r\n", b"{" * 300_000), (b"Transfer-Encoding: chunked\r\n", (b"5\r\n{{{{{\r\n" * 20_000) + b"0\r\n\r\n")],
    ids=["whole", "chunked"],
)
def test_a_body_is_read_away_and_the_connection_goes_on(connect: Connect, headers: bytes, body: bytes, pause: bool):
    connection = connect()
    head = request("POST", "/v1/recommendations", WRONG + headers)
    if pause:
        connection.sendall(head + body[:1000])
        (refused,) = responses(connection, "POST")
        connection.sendall(body[1000:])
    else:
        connection.sendall(head + body)
        (refused,) = responses(connection, "POST")
    connection.sendall(request("GET", "/v1/catalog"))
    (next_one,) = responses(connection, "GET")
    assert [refused.status_code, next_one.status_code] == [401, 401]
    assert "connection" not in refused.headers


@pytest.mark.parametrize(
    "asked",
    [
        request("POST", "/v1/recommendations", WRONG + b"Content-Length: 9\r\nExpect: 100-continue\r\n"),
        request("GET", "/v1/catalog", WRONG, version="1.0"),
        request("GET", "/v1/catalog", WRONG + b"Connection: close\r\n"),
        request("POST", "/v1/recommendations", WRONG + b"Content-Length: 90\r\nConnection: close\r\n", b"{" * 50),
    ],
    ids=["100-continue", "HTTP/1.0", "close", "close within a body"],
)
def test_a_connection_that_can_not_go_on_is_closed_behind_the_answer(connect: Connect, asked: bytes):
    """Of a client that waits for leave to send its body nobody knows whether it will: what comes next might be a body or a request."""
    connection = connect()
    connection.sendall(asked)
    head, _, body = rest(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"\r\nconnection: close" in head
    assert json.loads(body)["type"] == UNKNOWN


def test_who_is_gone_before_its_answer_is_counted_twice_as_well(guarded: ForkedServer, connect: Connect):
    """What follows is no request, so the connection ends before the refusal's turn."""

    def counted() -> list[float]:
        answers = guarded.metric("atspeed_http_responses_total", method="GET", route="unmatched", status="401")
        return [answers, guarded.metric("atspeed_keyless_refusals_total", reason="unknown")]

    before = counted()
    connection = connect()
    connection.sendall(request("GET", "/v1/catalog") + b"\x00\r\n\r\n")
    rest(connection)
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 1]


def test_who_does_not_read_what_it_is_told_is_told_no_more(guarded: ForkedServer):
    with socket.socket() as connection:
        # Before it is open: a window that shrinks later makes the client drop what the server acknowledges.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", httpx.URL(guarded.url).port))
        assert_ended(connection, request("GET", "/v1/catalog") * 500)
        assert "Traceback" not in guarded.log
