"""Certificates of Redis that are replaced while a server runs: each new connection is made with those that are there by then."""

import shutil
import ssl
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.sentinel import SentinelConnectionPool

from server.redis.access import RedisAccess
from server.redis.client import Sentinels
from server.try_again import HistoryUnavailable
from tests.services import REDIS_BINARY, REDIS_MISSING, RedisServer, free_port, make_certificate

pytestmark = pytest.mark.skipif(REDIS_BINARY is None, reason=REDIS_MISSING)

StartRedis = Callable[..., RedisServer]


@pytest.fixture
def server(start_redis: StartRedis, tmp_path: Path, request: pytest.FixtureRequest) -> RedisServer:
    """One that shows the certificate of the folder `new`, and asks for one of whoever connects."""
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        make_certificate(tmp_path / folder)
    chain, key = (str(tmp_path / "new" / f"{name}.pem") for name in ("certificate", "key"))
    tls = "--tls-cert-file", chain, "--tls-key-file", key, "--tls-ca-cert-file", chain
    is_cluster = request.node.callspec.params["kind"] == "cluster"
    cluster = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--tls-cluster", "yes") if is_cluster else ()
    server = start_redis(*tls, *cluster, tls=True)
    if is_cluster:
        with redis.Redis(port=server.port, ssl=True, ssl_ca_certs=chain, ssl_certfile=chain, ssl_keyfile=key) as admin:
            admin.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)  # type: ignore[no-untyped-call]
    return server


def opened(kind: str, port: int, mounted: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RedisAccess, Callable[[], Awaitable[object]]]:
    """A Redis by its URL, and what asks a server of this kind."""
    scheme, path = {"one": ("rediss", "/0"), "cluster": ("rediss+cluster", "")}.get(kind, ("rediss+sentinel", "/films/0"))
    certificate, key = mounted / "certificate.pem", mounted / "key.pem"
    options = f"ssl_ca_certs={certificate}&ssl_certfile={certificate}&ssl_keyfile={key}"
    access = RedisAccess(f"{scheme}://127.0.0.1:{port}{path}?{options}", 10, 4, "histories", HistoryUnavailable)
    if kind == "sentinel":
        assert isinstance(access.client, Redis)
        assert isinstance(access.client.connection_pool, SentinelConnectionPool)
        return access, access.client.connection_pool.sentinel_manager.sentinels[0].ping

    async def discover(*_: object) -> tuple[str, int]:
        return "127.0.0.1", port

    monkeypatch.setattr(Sentinels, "discover_master", discover)
    return access, access.client.ping


@pytest.mark.parametrize("kind", ["one", "sentinel", "master", "cluster"])
async def test_a_connection_is_made_with_the_certificates_that_are_there_by_then(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mounted = tmp_path / "mounted"
    shutil.copytree(tmp_path / "old", mounted)
    access, ask = opened(kind, server.port, mounted, monkeypatch)

    async def reach() -> None:
        async with access.reach():
            await ask()

    for _ in range(2):
        with pytest.raises(HistoryUnavailable, match="certificate verify failed"):
            await reach()
    shutil.copytree(tmp_path / "new", mounted, dirs_exist_ok=True)
    await reach()
    await access.close()


@pytest.mark.parametrize("kind", ["one"])
async def test_certificates_that_have_not_changed_are_not_read_again(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """When a Redis was restarted, all connections are made anew at the same time."""
    access, ask = opened(kind, server.port, tmp_path / "new", monkeypatch)
    make, made = ssl.create_default_context, []
    monkeypatch.setattr(ssl, "create_default_context", lambda: made.append(threading.current_thread()) or make())
    for _ in range(3):
        async with access.reach():
            await ask()
        assert isinstance(access.client, Redis)
        await access.client.connection_pool.disconnect()
    (thread,) = made
    assert thread is not threading.main_thread()
    await access.close()
