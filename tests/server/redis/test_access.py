"""An operation on a Redis that stands still or is away ends in its time, with the store's error."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from server.redis.access import RedisAccess
from server.redis.client import Sentinels
from server.try_again import ControlFull, ControlUnavailable, HistoryUnavailable
from tests.services import REDIS_BINARY, REDIS_MISSING, RedisClusterServers, RedisServer, free_port, make_certificate

pytestmark = pytest.mark.skipif(REDIS_BINARY is None, reason=REDIS_MISSING)


@pytest.mark.parametrize("disconnects", [True, False])
async def test_by_tls_nobody_waits_for_the_goodbye_of_a_master_that_stands_still(
    start_redis: Callable[..., RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, disconnects: bool
) -> None:
    certificate, key = make_certificate(tmp_path)
    tls = "--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no"
    master = start_redis(*tls, tls=True)

    async def discover(*_: object) -> tuple[str, int]:
        return "127.0.0.1", master.port

    async def fail(*_: object, **__: object) -> None:
        raise RedisError

    monkeypatch.setattr(Sentinels, "discover_master", discover)
    url = f"rediss+sentinel://127.0.0.1:1/films/0?ssl_ca_certs={certificate}"
    access = RedisAccess(url, 0.1, 4, "histories", HistoryUnavailable)
    assert isinstance(access.client, Redis)

    async def ping(patience: float = 0.0) -> None:
        async with access.reach(patience):
            await access.client.ping()

    await asyncio.gather(*(ping(20) for _ in range(3)))
    if not disconnects:
        monkeypatch.setattr(access.client.connection_pool, "disconnect", fail)
    master.pause()
    # A goodbye of TLS is waited for 30 s.
    async with asyncio.timeout(15):
        for _ in range(2):
            with pytest.raises(HistoryUnavailable, match=r"did not answer within 0\.1 s"):
                await ping()
        if disconnects:
            await access.close()
    master.resume()


async def test_by_tls_a_write_that_comes_to_a_replica_waits_for_no_goodbye(start_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """Of the servers that a name has led to, one may stand still."""
    certificate, key = make_certificate(tmp_path)
    server = start_redis("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no", tls=True)
    access = RedisAccess(f"rediss://127.0.0.1:{server.port}/0?ssl_ca_certs={certificate}", 20, 4, "histories", HistoryUnavailable)
    async with access.reach():
        await access.client.ping()
    server.pause()
    with pytest.raises(HistoryUnavailable, match="read only replica"):
        # A goodbye of TLS is waited for 30 s.
        async with asyncio.timeout(15), access.reach():
            raise ReadOnlyError("You can't write against a read only replica.")
    await access.close()
    server.resume()


async def test_slots_that_have_moved_close_no_connection(redis_cluster: RedisClusterServers, monkeypatch: pytest.MonkeyPatch) -> None:
    access = RedisAccess(redis_cluster.url, 10, 4, "histories", HistoryUnavailable)
    cluster = access.client
    assert isinstance(cluster, RedisCluster)
    async with access.reach():
        keys = [f"moved-{number}" for number in range(24)]
        for key in keys:
            await cluster.set(key, key, ex=60)
    closed: list[None] = []

    async def close() -> None:
        closed.append(None)

    with monkeypatch.context() as patched:
        patched.setattr(cluster, "aclose", close)
        slots, nodes = cluster.nodes_manager.slots_cache, cluster.get_primaries()
        for key in keys:
            slot = cluster.keyslot(key)
            # As if it had been another's.
            slots[slot] = [next(node for node in nodes if node is not slots[slot][0])]
        async with access.reach():
            assert [await cluster.get(key) for key in keys] == [key.encode() for key in keys]
    assert closed == []
    await access.close()


async def read(access: RedisAccess) -> object:
    """What a Cluster has under the key `asked`, by a pipeline, as a user is read."""
    assert isinstance(access.client, RedisCluster)
    async with access.reach():
        one = access.client.pipeline(transaction=False)
        one.get("asked")
        (answer,) = await one.execute(raise_on_error=False)
        return answer


@pytest.mark.parametrize("stands_still", [False, True])
async def test_who_has_a_slot_is_asked_anew_where_a_server_of_a_cluster_is_gone(
    redis_cluster: RedisClusterServers, *, stands_still: bool
) -> None:
    """redis-py asks anew neither after a pipeline, as a read of a user is one, nor after an operation whose time is over."""
    access = RedisAccess(redis_cluster.url, 10, 4, "histories", HistoryUnavailable)
    cluster = access.client
    assert isinstance(cluster, RedisCluster)

    async def wait_in_vain() -> object:
        async with access.reach():
            raise TimeoutError

    assert await read(access) is None
    # As if another server had had the slot until now.
    cluster.nodes_manager.slots_cache[cluster.keyslot("asked")] = [ClusterNode("127.0.0.1", free_port())]
    with pytest.raises(HistoryUnavailable, match="did not answer within" if stands_still else "cannot serve histories"):
        await (wait_in_vain() if stands_still else read(access))
    assert await read(access) is None
    await access.close()


async def test_a_cluster_whose_servers_all_have_other_addresses_is_found_by_its_url(redis_cluster: RedisClusterServers) -> None:
    access = RedisAccess(redis_cluster.url, 10, 4, "histories", HistoryUnavailable)
    cluster = access.client
    assert isinstance(cluster, RedisCluster)
    assert await read(access) is None
    # As if all that were found had been started anew elsewhere.
    gone = ClusterNode("127.0.0.1", free_port())
    cluster.nodes_manager.startup_nodes = {gone.name: gone}
    cluster.nodes_manager.slots_cache[cluster.keyslot("asked")] = [gone]
    with pytest.raises(HistoryUnavailable, match="cannot serve histories"):
        await read(access)
    assert await read(access) is None
    await access.close()


async def test_a_cluster_that_is_away_is_the_error_of_the_store() -> None:
    access = RedisAccess(f"redis+cluster://127.0.0.1:{free_port()}", 10, 4, "histories", HistoryUnavailable)
    for _ in range(2):
        with pytest.raises(HistoryUnavailable, match=r"^Redis at 127\.0\.0\.1:\d+ cannot serve histories: Redis Cluster cannot be"):
            async with access.reach():
                await access.client.ping()
    await access.close()


async def test_a_write_that_comes_to_a_replica_gives_up_the_connections_to_it(
    start_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name may lead to another server by then, and what was the master goes on answering whoever is connected to it."""
    clock = [1000.0]
    monkeypatch.setattr("server.redis.access.time", SimpleNamespace(monotonic=lambda: clock[0]))
    server = start_redis()
    access = RedisAccess(server.url, 10, 4, "histories", HistoryUnavailable)

    async def put() -> None:
        async with access.reach():
            await access.client.set("key", "value")

    await put()
    async with Redis(port=server.port) as admin:
        await admin.replicaof("127.0.0.1", free_port())

        async def connections_after_a_refusal() -> int:
            with pytest.raises(HistoryUnavailable, match="read only replica"):
                await put()
            return int((await admin.info("stats"))["total_connections_received"])

        first = await connections_after_a_refusal()
        # The next one connects anew, and those after it do not within a second.
        assert [await connections_after_a_refusal() for _ in range(2)] == [first + 1] * 2
        clock[0] += 1
        assert [await connections_after_a_refusal() for _ in range(2)] == [first + 1, first + 2]
        await admin.replicaof("NO", "ONE")
        await put()
    await access.close()


async def test_a_redis_without_memory_is_full_in_the_words_of_redis_6_too() -> None:
    access = RedisAccess("redis://127.0.0.1:1", 10, 4, "the control store", ControlUnavailable, ControlFull)
    full = "OOM command not allowed when used memory > 'maxmemory'."
    for error in OutOfMemoryError(full), ResponseError(f"Error running script (call to f_8a7d): @user_script: 37: -{full}"):
        with pytest.raises(ControlFull, match="maxmemory"):
            async with access.reach():
                raise error
    await access.close()
