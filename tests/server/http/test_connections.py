"""Connections that do nothing, do it slowly or bring too much are ended, with a sentence where HTTP permits, and cost nobody else."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from tests.server.server_process import ServerProcess, assert_problem

LIMITS = {"header-seconds": 1, "body-seconds": 1.5, "idle-seconds": 1, "max-header-kib": 8, "max-connections-per-client": 30}
# Beyond a limit, for the look once a second and a busy machine.
PATIENCE_SECONDS = 8.0
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def limited(model_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with narrow limits; it is not ready, as nothing here is about lists."""
    flags = [part for name, value in LIMITS.items() for part in (f"--{name}", str(value))]
    server = ServerProcess(tmp_path_factory.mktemp("limited"), *model_flags, "--histories", "memory://", *flags)
    with server, server.without_engine():
        yield server


@pytest.fixture
def connect(limited: ServerProcess) -> Iterator[Callable[[], socket.socket]]:
    address = ("127.0.0.1", httpx.URL(limited.url).port)
    with ExitStack() as stack:

        def opened() -> socket.socket:
            return stack.enter_context(closing(socket.create_connection(address, timeout=PATIENCE_SECONDS)))

        yield opened


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection; fails if it does not."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def assert_told(answer: bytes, status: int, sentence: str) -> None:
    """The answer is one problem, whole, and says that the connection ends."""
    head, _, body = answer.partition(b"\r\n\r\n")
    headers = head.decode().lower().split("\r\n")
    assert headers[0].startswith(f"http/1.1 {status} ")
    assert {"content-type: application/problem+json", "x-content-type-options: nosniff", "connection: close"} <= set(headers)
    assert (json.loads(body)["status"], json.loads(body)["detail"]) == (status, sentence)


def drip(connection: socket.socket, start: bytes, piece: bytes) -> tuple[bytes, float]:
    """Send a piece every tenth of a second until the server has answered; all that came, and how long it took."""
    connection.sendall(start)
    begun = time.monotonic()
    connection.settimeout(0.1)
    while time.monotonic() - begun < PATIENCE_SECONDS:
        try:
            first = connection.recv(65536)
            connection.settimeout(PATIENCE_SECONDS)
            return first + rest(connection), time.monotonic() - begun
        except TimeoutError:
            connection.sendall(piece)
    raise AssertionError("the server has not ended the connection")


def assert_ended(connection: socket.socket, piece: bytes) -> None:
    """The server ends a connection on which a piece is sent again and again, and nothing read."""
    connection.settimeout(0.5)
    begun = time.monotonic()
    while time.monotonic() - begun < 2 * PATIENCE_SECONDS:
        try:
            connection.sendall(piece)
            time.sleep(0.02)
        except TimeoutError:
            """The server reads no more."""
        except OSError:
            return
    raise AssertionError("the server has not ended the connection")


def assert_read_to_its_end(response: httpx.Response) -> None:
    """The body, of which the last field is no list's length, was read whole."""
    assert_problem(response, 422, "k must be greater than or equal to 1, got 0.")


def test_connections_without_a_request_are_ended(limited: ServerProcess, connect: Callable[[], socket.socket]):
    idle = [connect() for _ in range(20)]
    assert limited.metric("atspeed_open_connections") >= 20
    assert [rest(connection) for connection in idle] == [b""] * 20


def test_headers_that_come_slowly_end(connect: Callable[[], socket.socket]):
    answer, seconds = drip(connect(), GET, b"X-A: b\r\n")
    assert_told(answer, 408, "The headers took longer than 1 s.")
    assert seconds >= 0.9


def test_headers_that_come_slowly_end_after_an_answer_too(connect: Callable[[], socket.socket]):
    connection = connect()
    connection.sendall(GET + b"\r\n")
    answer = b""
    while b"}" not in answer:
        answer += connection.recv(65536)
    assert_told(drip(connection, GET, b"X-A: b\r\n")[0], 408, "The headers took longer than 1 s.")


def test_a_connection_is_ended_when_nothing_follows_an_answer(connect: Callable[[], socket.socket]):
    connection = connect()
    connection.sendall(GET + b"\r\n")
    answer = rest(connection)
    assert answer.count(b"HTTP/1.1") == 1


def test_a_body_that_comes_slowly_ends(limited: ServerProcess, connect: Callable[[], socket.socket]):
    head = b"POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    answer, seconds = drip(connect(), head, b" ")
    assert_told(answer, 408, "The body took longer than 1.5 s.")
    assert seconds >= 1.4
    assert limited.metric("atspeed_http_responses_total", route="/v1/recommendations", status="408") >= 1


def test_an_upload_may_take_its_time_as_long_as_it_goes_on(connect: Callable[[], socket.socket]):
    head = b"PUT /v1/catalogs/slow HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n"
    connection = connect()
    connection.sendall(head)
    begun = time.monotonic()
    while time.monotonic() - begun < 3:
        connection.sendall(b" ")
        time.sleep(0.1)
    assert_told(rest(connection), 408, "The body took longer than 1.5 s.")


def test_a_body_that_goes_on_after_its_answer_is_not_read_for_ever(connect: Callable[[], socket.socket]):
    head = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    connection = connect()
    connection.sendall(head)
    assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
    assert_ended(connection, b" ")


@pytest.mark.parametrize(
    "headers",
    [b"X-Long: " + b"a" * 9000 + b"\r\n\r\n", b"".join(b"X-%d: a\r\n" % n for n in range(1500)) + b"\r\n", b"X-Endless: " + b"a" * 900_000],
    ids=["one long", "many short", "without an end"],
)
def test_headers_that_are_too_large_are_refused(limited: ServerProcess, connect: Callable[[], socket.socket], headers: bytes):
    memory = psutil.Process(limited.process.pid).memory_info().rss
    connection = connect()
    try:
        connection.sendall(GET + headers)
    except OSError:
        """The answer has come before all was sent."""
    assert_told(rest(connection), 431, "The headers are larger than the 8 KiB that this server reads.")
    assert psutil.Process(limited.process.pid).memory_info().rss - memory < 16 * 2**20


CHUNKED = b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [(b"0\r\n", b"X-A: b\r\n" * 400), (b"0\r\nX-Endless: ", b"a" * 3000), (b"1;", b"a" * 3000)],
    ids=["many", "one", "extension"],
)
def test_what_frames_a_body_is_limited_as_headers_are(
    limited: ServerProcess, connect: Callable[[], socket.socket], start: bytes, piece: bytes
):
    refused = limited.metric("atspeed_refused_connections_total", reason="header-size")
    answer, _ = drip(connect(), b"POST /v1/recommendations" + CHUNKED + start, piece)
    assert_told(answer, 431, "The headers are larger than the 8 KiB that this server reads.")
    answered = connect()
    answered.sendall(b"POST /nowhere" + CHUNKED)
    assert answered.recv(65536).startswith(b"HTTP/1.1 404 ")
    answered.sendall(start)
    assert_ended(answered, piece)
    assert limited.metric("atspeed_refused_connections_total", reason="header-size") == refused + 2


def test_a_chunked_body_of_many_pieces_is_read(limited: ServerProcess):
    pieces = (b'"%05d",' % number for number in range(5000))
    content = iter([b'{"history": [', *pieces, b'"x"], "k": 0}'])
    response = limited.client.post("/v1/recommendations", content=content, headers={"content-type": "application/json"})
    assert_read_to_its_end(response)


def test_a_url_that_is_too_long_is_refused(connect: Callable[[], socket.socket]):
    connection = connect()
    connection.sendall(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert_told(rest(connection), 431, "The headers are larger than the 8 KiB that this server reads.")


def test_headers_just_below_the_limit_beside_a_large_body_are_read(limited: ServerProcess):
    response = limited.client.post("/v1/recommendations", json={"history": ["x" * 200] * 5000, "k": 0}, headers={"X-Long": "a" * 7000})
    assert_read_to_its_end(response)


@pytest.mark.parametrize(
    "garbage",
    [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /\xff HTTP/1.1\r\n\r\n"],
    ids=["text", "TLS", "bytes"],
)
def test_what_is_not_http_gets_a_sentence(connect: Callable[[], socket.socket], garbage: bytes):
    connection = connect()
    connection.sendall(garbage)
    assert_told(rest(connection), 400, "This is no request that HTTP/1.1 knows.")


def test_one_address_has_a_share_of_the_connections_and_gets_it_back(limited: ServerProcess, connect: Callable[[], socket.socket]):
    # Those of earlier tests are gone for the server, too.
    limited.wait_for(lambda: limited.metric("atspeed_open_connections") <= 2)
    held = [connect() for _ in range(40)]
    told = [rest(connection) for connection in held]
    refused = [answer for answer in told if answer]
    # The client of the metrics and of other tests has one or two of them.
    assert 10 <= len(refused) <= 14
    assert_told(refused[0], 503, "Your address has 30 connections to this server, as many as one may have.")
    assert b"retry-after: 1" in refused[0]
    assert limited.client.get("/health").status_code in (200, 503)
    assert limited.metric("atspeed_refused_connections_total", reason="client") >= len(refused)


def test_a_client_that_does_not_read_is_not_waited_for(limited: ServerProcess, connect: Callable[[], socket.socket]):
    connection = connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert_ended(connection, b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")


def test_the_server_as_a_whole_has_so_many_connections_and_tells_who_is_refused(model_flags: list[str], tmp_path: Path):
    sentence = "The server has 8 connections, as many as it takes on; try again later."
    head = b"POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 200000\r\n\r\n"
    flags = ["--histories", "memory://", "--max-connections", "8", "--header-seconds", "60"]
    with ServerProcess(tmp_path, *model_flags, *flags) as server, server.without_engine(), ExitStack() as stack:
        address = ("127.0.0.1", httpx.URL(server.url).port)

        def connect() -> socket.socket:
            return stack.enter_context(closing(socket.create_connection(address, timeout=PATIENCE_SECONDS)))

        assert server.metric("atspeed_open_connections") == 1
        for _ in range(7):
            connect()
        late = connect()
        server.wait_for(lambda: server.metric("atspeed_refused_connections_total", reason="connections") == 1)
        # What is sent after the refusal is no reason to lose it.
        late.sendall(head)
        for _ in range(20):
            late.sendall(b" " * 10_000)
            time.sleep(0.02)
        assert_told(b"".join(iter(partial(late.recv, 65536), b"")), 503, sentence)
        late.close()
        # Those who neither read nor end are ended, and only so many are waited for.
        files = psutil.Process(server.process.pid).num_fds()
        crowd = [connect() for _ in range(100)]
        server.wait_for(lambda: server.metric("atspeed_refused_connections_total", reason="connections") == 101)
        assert psutil.Process(server.process.pid).num_fds() - files <= 64
        assert_ended(crowd[0], b" " * 10_000)
        server.wait_for(lambda: psutil.Process(server.process.pid).num_fds() <= files)
