"""Redis for the rooms that keep something in it: one server, one behind Sentinel and one Cluster for the whole run; and engine processes of
the tests' own.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.engine import supervisor as engine_supervisor
from tests.server.forked_server import fork_or_execute
from tests.services import REDIS_BINARY, REDIS_MISSING, RedisClusterServers, RedisServer, SentinelServers

# The fixture of a scheme, whose `url` is that of a store.
REDIS_FIXTURES = {"redis": "redis_server", "sentinel": "redis_sentinel", "cluster": "redis_cluster"}


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if REDIS_BINARY is None:
        pytest.skip(REDIS_MISSING)
    # Nothing here outlives the server, so it need not wait for the disk.
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "no")
    yield server.start()
    server.close()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisClusterServers]:
    if REDIS_BINARY is None:
        pytest.skip(REDIS_MISSING)
    cluster = RedisClusterServers(tmp_path_factory.mktemp("cluster"))
    yield cluster.start()
    cluster.close()


@pytest.fixture(scope="session")
def redis_sentinel(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelServers]:
    """One that has nobody to promote: contracts are about what stands in front of the master."""
    sentinels = SentinelServers(tmp_path_factory.mktemp("sentinel"), redis_server)
    yield sentinels.wait_for(replicas=0)
    sentinels.close()


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts servers of the test's own, which it may pause and kill."""
    servers: list[RedisServer] = []

    def start(*options: str, tls: bool = False) -> RedisServer:
        folder = tmp_path / f"redis-{len(servers)}"
        folder.mkdir()
        servers.append(RedisServer(folder, *options, tls=tls))
        return servers[-1].start()

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def run_as_engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has engine clients of this process run a module of the tests, in a fork of this process: it has imported what the module needs."""

    def choose(module: str) -> None:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", fork_or_execute)
        monkeypatch.setattr(engine_supervisor, "WORKER_MODULE", module)

    return choose
