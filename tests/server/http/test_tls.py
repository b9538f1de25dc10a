"""HTTPS without a gateway, a port for operations, and keys, on one real server: certificates are replaced while it runs."""

import asyncio
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from server.http.listening import listen
from server.http.tls import Certificate, FollowingServer, certificate_of
from server.keys.file import add_key
from server.keys.key import Scope
from tests.server.forked_server import ForkedServer
from tests.server.http.test_connections import rest
from tests.server.server_process import assert_problem
from tests.services import make_certificate


@pytest.fixture
def certificates(tmp_path: Path) -> list[tuple[Path, Path]]:
    """Two certificates, each with its key."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    return [make_certificate(tmp_path / name) for name in ("first", "second")]


def shown(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=20)


async def test_a_chain_never_meets_the_key_of_another(certificates: list[tuple[Path, Path]], caplog: pytest.LogCaptureFixture):
    (chain, key), (new_chain, new_key) = certificates
    certificate = Certificate(chain, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    loaded: list[bytes] = []
    context_type = type("Watched", (ssl.SSLContext,), {"load_cert_chain": lambda self, *paths: loaded.append(chain.read_bytes())})
    watched = context_type(ssl.PROTOCOL_TLS_SERVER)
    chain.write_bytes(new_chain.read_bytes())
    for _ in range(2):
        await certificate.look(watched)
    assert loaded == []
    assert caplog.text.count("is no certificate chain (PEM)") == 1
    key.write_bytes(new_key.read_bytes())
    await certificate.look(watched)
    assert loaded == [new_chain.read_bytes()]
    await certificate.look(context)
    key.unlink()
    await certificate.look(watched)
    assert len(loaded) == 1


async def test_the_log_says_that_a_wrong_certificate_is_over_where_the_old_one_is_put_back(
    certificates: list[tuple[Path, Path]], caplog: pytest.LogCaptureFixture
):
    (chain, key), (new_chain, _) = certificates
    certificate, context, before = Certificate(chain, key), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), chain.read_bytes()
    for data in (new_chain.read_bytes(), before, before):
        chain.write_bytes(data)
        await certificate.look(context)
    assert ["is no certificate chain (PEM)" in caplog.messages[0], ": no longer, after " in caplog.messages[1]] == [True, True]
    assert len(caplog.messages) == 2


async def test_a_server_follows_its_certificate(certificates: list[tuple[Path, Path]]):
    """As the console's, which is uvicorn and no more."""
    (chain, key), (new_chain, new_key) = certificates

    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Nobody asks."""

    config = uvicorn.Config(app, ssl_certfile=chain, ssl_keyfile=key, lifespan="off", log_config=None, log_level="error")
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        server = FollowingServer(config, Certificate(chain, key))
        serving = asyncio.create_task(server.serve([listener]))
        assert (await asyncio.to_thread(shown, port)).split() == chain.read_text().split()
        key.write_bytes(new_key.read_bytes())
        chain.write_bytes(new_chain.read_bytes())
        async with asyncio.timeout(20):
            while (await asyncio.to_thread(shown, port)).split() != new_chain.read_text().split():
                await asyncio.sleep(0.2)
        server.should_exit = True
        await serving


def test_half_a_certificate_is_refused_in_a_sentence(certificates: list[tuple[Path, Path]]):
    (chain, key), (_, other) = certificates
    for given, sentence in (
        ((chain, None), "give --tls-cert and --tls-key"),
        ((None, key), "give --tls-cert and --tls-key"),
        ((chain, other), "is no certificate chain"),
        ((key, key), "is no certificate chain"),
        ((chain, chain.parent / "none"), "can't be read: No such file"),
    ):
        with pytest.raises(ValueError, match=sentence):
            certificate_of(*given)
    assert certificate_of(None, None) is None


@pytest.fixture
def secured(tmp_path: Path, model_flags: list[str], certificates: list[tuple[Path, Path]]) -> Iterator[tuple[ForkedServer, str, int]]:
    """A server, the key of a shop, and the port of operations."""
    chain, key = certificates[0]
    text = add_key(tmp_path / "keys.json", "shop", [Scope.RECOMMEND, Scope.CATALOG])
    flags = ["--keys", tmp_path / "keys.json", "--operate-port", "0", "--tls-cert", chain, "--tls-key", key, "--histories", "memory://"]
    with ForkedServer(tmp_path, *model_flags, *map(str, flags)) as server, server.without_engine():
        operations = int(server.log.partition("operations are at https://127.0.0.1:")[2].split()[0])
        yield server, text, operations


def test_a_handshake_holds_a_place_and_ends(tmp_path: Path, model_flags: list[str], certificates: list[tuple[Path, Path]]):
    chain, key = certificates[0]
    flags = ["--tls-cert", chain, "--tls-key", key, "--histories", "memory://", "--header-seconds", "4", "--max-connections", "6"]
    with ForkedServer(tmp_path, *model_flags, *map(str, flags)) as server, server.without_engine(), ExitStack() as stack:
        address = ("127.0.0.1", httpx.URL(server.url).port)
        trusted = ssl.create_default_context(cafile=chain)

        def held() -> socket.socket:
            return stack.enter_context(closing(socket.create_connection(address, timeout=20)))

        client = stack.enter_context(httpx.Client(verify=trusted, trust_env=False, timeout=60, base_url=server.url))

        def open_connections() -> float:
            found = re.search(r"^atspeed_open_connections (.*)$", client.get("/metrics").text, re.MULTILINE)
            assert found is not None
            return float(found[1])

        before = open_connections()
        silent, slow, garbage = held(), held(), held()
        # The beginning of a record that never ends; and what is none.
        slow.sendall(b"\x16\x03\x01\x02\x00")
        server.wait_for(lambda: open_connections() == before + 3)
        garbage.sendall(b"GET / HTTP/1.1\r\n\r\n")
        rest(garbage)
        assert [rest(connection) for connection in (silent, slow)] == [b"", b""]
        server.wait_for(lambda: open_connections() == before)
        # Those without a place may agree on TLS, and are told.
        crowd = [held() for _ in range(5)]
        with trusted.wrap_socket(held(), server_hostname="127.0.0.1") as late:
            assert late.recv(65536).startswith(b"HTTP/1.1 503 ")
        for connection in crowd:
            connection.close()
        server.wait_for(lambda: open_connections() == before)
        assert "Traceback" not in server.log


def test_certificates_are_replaced_and_operations_have_their_port(
    secured: tuple[ForkedServer, str, int], certificates: list[tuple[Path, Path]]
):
    server, text, operations = secured
    (chain, key), (new_chain, new_key) = certificates
    port = httpx.URL(server.url).port
    assert server.url.startswith("https://")
    assert port is not None
    assert shown(port).split() == chain.read_text().split()
    trusted = ssl.create_default_context(cafile=chain)
    kept = httpx.Limits(keepalive_expiry=60)
    with httpx.Client(verify=trusted, trust_env=False, timeout=60, limits=kept, headers={"Authorization": f"Bearer {text}"}) as client:
        for path in ("/v1/catalogs", "/v1/catalog/filters", "/metrics"):
            assert_problem(
                client.get(f"{server.url}{path}"), 404, "This port does not take operations: the server has another one for them."
            )
            assert client.get(f"https://127.0.0.1:{operations}{path}").status_code == 200
        for path in ("/health", "/docs", "/v1/catalog/items"):
            assert client.get(f"{server.url}{path}").status_code == 200
            assert client.get(f"https://127.0.0.1:{operations}{path}").status_code == 200
        # A refusal on a connection by TLS, which has no half that could be closed.
        assert client.get(f"{server.url}/health", headers={"X-Long": "x" * 60_000}).status_code == 431
        assert client.get(f"{server.url}/health").status_code == 200
        # One whose request is whole, or whose client waits for leave to send the rest, ends as TLS says it; an end without that raises.
        for asked in (
            b"GET /v1/catalog HTTP/1.1\r\nConnection: close",
            b"POST /v1/scores HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue",
        ):
            with trusted.wrap_socket(socket.create_connection(("127.0.0.1", port), 20), False, True, False, "127.0.0.1") as refused:
                refused.sendall(asked + b"\r\nHost: localhost\r\n\r\n")
                assert b"".join(iter(lambda: refused.recv(65536), b"")).startswith(b"HTTP/1.1 401 ")
        key.write_bytes(new_key.read_bytes())
        chain.write_bytes(new_chain.read_bytes())
        server.wait_for(lambda: shown(port).split() == new_chain.read_text().split(), pause=0.3)
        assert shown(operations).split() == new_chain.read_text().split()
        # The connection that was open before goes on.
        assert client.get(f"{server.url}/health").status_code == 200
    assert text not in server.log
    assert text.encode() not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
