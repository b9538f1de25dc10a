"""The stores under test: one Redis for the whole run, a fresh file, prefix or object for each test."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from server.histories import HistoryStore, open_history_store
from tests.services import REDIS_BINARY, REDIS_MISSING, RedisClusterServers, RedisServer, SentinelServers

StoreFactory = Callable[..., HistoryStore]
REDIS_FIXTURES = {"redis": "redis_server", "sentinel": "redis_sentinel", "cluster": "redis_cluster"}
_numbers = itertools.count()


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
    """One that has nobody to promote: the contract is about what stands in front of the master."""
    sentinels = SentinelServers(tmp_path_factory.mktemp("sentinel"), redis_server)
    yield sentinels.wait_for(replicas=0)
    sentinels.close()


@pytest.fixture(params=["memory", "sqlite", "redis", "sentinel", "cluster"])
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make_store(scheme: str, request: pytest.FixtureRequest, tmp_path: Path) -> StoreFactory:
    """Opens empty stores, with whatever options of `open_history_store` the test gives; the test closes them."""

    def make(**options: object) -> HistoryStore:
        number = next(_numbers)
        match scheme:
            case "sqlite":
                return open_history_store(f"sqlite:///{tmp_path}/histories-{number}.db", **options)
            case "redis" | "sentinel" | "cluster":
                # A generous timeout: the contract is no test of how busy this machine is.
                defaults = {"timeout_seconds": 10.0, "key_prefix": f"test-{number}"}
                return open_history_store(request.getfixturevalue(REDIS_FIXTURES[scheme]).url, **(defaults | options))
            case _:
                return open_history_store("memory://", **options)

    return make


@pytest.fixture
async def store(make_store: StoreFactory) -> AsyncIterator[HistoryStore]:
    """An empty store that shows at most five events a user."""
    opened = make_store(max_events=5)
    yield opened
    await opened.close()
