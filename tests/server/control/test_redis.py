"""What only Redis can do to the control state: hang, die, lose the newest writes in a failover, lose everything."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from server.control import ControlStore, Limits, Position, Replica, State, Write, open_control_store
from server.control.redis import RedisControlStore
from server.control.redis_scripts import LOG, LOOK
from server.try_again import ControlConflict, ControlFull, ControlUnavailable
from tests.services import REDIS_BINARY, REDIS_MISSING, RedisServer

pytestmark = pytest.mark.skipif(REDIS_BINARY is None, reason=REDIS_MISSING)

KEYS = [f"{{atspeed:control}}:{name}" for name in ("state", "log", "moves")]
TIMEOUT_SECONDS = 0.3


@pytest.fixture
async def admin(redis_server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis(port=redis_server.port) as client:
        await client.delete(*KEYS)
        yield client
        await client.delete(*KEYS)


@pytest.fixture
async def store(redis_server: RedisServer, admin: Redis) -> AsyncIterator[ControlStore]:
    opened = open_control_store(redis_server.url, Limits(timeout_seconds=20, log_writes=6))
    yield opened
    await opened.close()


async def snapshot(admin: Redis) -> dict[str, bytes]:
    return {key: await admin.dump(key) for key in KEYS}


async def go_back(admin: Redis, kept: dict[str, bytes]) -> None:
    """What a failover does to a replica of Redis that had not got the newest writes."""
    for key, content in kept.items():
        await admin.restore(key, 0, content, replace=True)


class Follower:
    """A replica that follows a store by the rules of the contract."""

    def __init__(self) -> None:
        self.position: Position | None = None
        self.values: dict[str, bytes] = {}
        self.read_by_log = 0

    async def catch_up(self, store: ControlStore) -> None:
        told = None if self.position is None else await store.writes(self.position)
        if told is None and (state := await store.state()) is not None:
            self.position, self.values = state.position, dict(state.values)
        for write in told or []:
            self.take(write)

    def take(self, write: Write) -> None:
        assert self.position is not None
        assert write.position.revision == self.position.revision + 1
        self.position = write.position
        self.read_by_log += 1
        for key, value in write.changes.items():
            self.values.pop(key, None)
            self.values |= {} if value is None else {key: value}


@pytest.mark.parametrize("seed", range(6))
async def test_who_follows_by_the_contract_always_comes_to_the_state_of_the_store(store: ControlStore, admin: Redis, seed: int) -> None:
    """Whatever happens to Redis: writes, writes that are lost and replaced by others, a trimmed log, an emptied store that is restored."""
    rng = random.Random(seed)
    await store.create({})
    followers = [Follower() for _ in range(3)]
    kept = await snapshot(admin)
    for _ in range(60):
        state = await store.state()
        match rng.choices(["write", "keep", "lose", "flush", "restore"], [12, 2, 2, 1, 1])[0]:
            case "write" if state is not None:
                keys = rng.sample("abcdef", rng.randrange(4))
                await store.write(state.position, "a", {key: rng.choice([None, rng.randbytes(3)]) for key in keys})
            case "keep" if state is not None:
                kept = await snapshot(admin)
            case "lose":
                await go_back(admin, kept)
            case "flush":
                await admin.delete(*KEYS)
            case "restore":
                own = rng.choice(followers)
                before = own.position.revision if own.position else 0
                restored = await store.replace(own.values, before)
                assert restored.position.revision > max(before, state.position.revision if state else 0)
        for follower in followers:
            if rng.random() < 0.4:
                await follower.catch_up(store)
    assert await store.state() is not None or await store.replace({}, 0)
    for follower in followers:
        await follower.catch_up(store)
        assert State(follower.position or Position("", 0, ""), follower.values) == await store.state()
    assert any(follower.read_by_log for follower in followers)


async def test_who_waits_is_told_of_another_write_at_a_lost_revision(store: ControlStore, admin: Redis) -> None:
    begun = (await store.create({})).position
    kept = await snapshot(admin)
    lost = (await store.write(begun, "a", {"key": b"lost"})).position
    told = asyncio.create_task(store.wait(lost, 60))
    await asyncio.sleep(0.05)
    await go_back(admin, kept)
    other = (await store.write(begun, "b", {"key": b"other"})).position
    assert other.revision == lost.revision
    async with asyncio.timeout(20):
        await told
    assert await store.writes(lost) is None
    with pytest.raises(ControlConflict):
        await store.write(lost, "a", {})


async def test_who_waits_is_told_that_the_state_is_gone_and_of_the_one_that_is_restored(store: ControlStore, admin: Redis) -> None:
    state = await store.replace({"key": b"value"}, revision=8)
    told = asyncio.create_task(store.wait(state.position, 60))
    await asyncio.sleep(0.05)
    await admin.delete(*KEYS)
    async with asyncio.timeout(20):
        await told
    assert await store.state() is None
    with pytest.raises(ControlConflict):
        await store.write(state.position, "a", {})
    told = asyncio.create_task(store.wait(None, 60))
    restored = await store.replace(state.values, state.position.revision)
    async with asyncio.timeout(20):
        await told
    assert restored == State(restored.position, {"key": b"value"})
    assert restored.position.revision == 10


async def test_a_redis_that_hangs_is_unavailable_in_time_until_it_wakes(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    store = open_control_store(server.url, Limits(timeout_seconds=TIMEOUT_SECONDS))
    patient = open_control_store(server.url, Limits(timeout_seconds=20))
    begun = (await patient.create({})).position
    waiting = asyncio.create_task(store.wait(begun, 60))
    await asyncio.sleep(0.05)
    server.pause()
    replica = Replica("a", begun, ready=True, problem=None, started_at=0.0, software="", version="")
    operations = [store.state(), store.writes(begun), store.write(begun, "a", {"key": b"1"}), store.wait(begun, 9), store.announce(replica)]
    started = time.monotonic()
    answers = await asyncio.gather(waiting, *operations, store.replicas(), store.create({}), return_exceptions=True)
    assert time.monotonic() - started < 10
    for answer in answers:
        assert isinstance(answer, ControlUnavailable)
        assert str(answer).startswith(f"Redis at 127.0.0.1:{server.port} did not answer within ")
    server.resume()
    # What was not answered may be there: who wrote it finds out by what follows its position.
    found = await patient.writes(begun)
    assert found is not None
    assert [write.changes for write in found] in ([], [{"key": b"1"}])
    await patient.write(found[-1].position if found else begun, "a", {"key": b"2"})
    assert await patient.state() == State((await patient.position()) or begun, {"key": b"2"})
    await store.close()
    await patient.close()


async def test_no_acknowledged_write_is_lost_when_redis_is_killed_between(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    store = open_control_store(server.url, Limits(timeout_seconds=20))
    begun = (await store.create({})).position
    acknowledged: list[Write] = []
    dying = asyncio.Event()

    async def write() -> None:
        position = begun
        for number in range(100_000):
            try:
                acknowledged.append(await store.write(position, "a", {f"key {number % 7}": b"%d" % number}))
            except ControlUnavailable:
                return
            position = acknowledged[-1].position
            if number == 30:
                dying.set()

    async def kill() -> None:
        await dying.wait()
        await asyncio.to_thread(server.kill)

    await asyncio.gather(write(), kill())
    await asyncio.to_thread(server.start)
    log = await store.writes(begun)
    assert log is not None
    # The write in flight at the kill may have been stored as well.
    assert log[: len(acknowledged)] == acknowledged
    assert 0 <= len(log) - len(acknowledged) <= 1
    await store.close()


async def test_a_write_is_acknowledged_only_when_a_replica_of_redis_has_it(redis_server: RedisServer, admin: Redis) -> None:
    store = open_control_store(redis_server.url, Limits(timeout_seconds=20))
    begun = (await store.create({})).position
    careful = open_control_store(f"{redis_server.url}?wait_replicas=1", Limits(timeout_seconds=2))
    with pytest.raises(ControlUnavailable, match="on 0 of the 1 replicas that must have it"):
        await careful.write(begun, "a", {"key": b"1"})
    log = await store.writes(begun)
    assert log is not None
    assert [write.changes for write in log] == [{"key": b"1"}]
    # Nor is it told, nor what the newest write is: another server may be the master by now.
    for read in (careful.position(), careful.writes(begun)):
        with pytest.raises(ControlUnavailable, match="on 0 of the 1 replicas that must have it"):
            await read
    assert (await careful.state() or State(begun, {})).values == {"key": b"1"}
    await store.close()
    await careful.close()


async def test_operations_that_end_with_their_time_leave_no_connection_behind(redis_server: RedisServer, admin: Redis) -> None:
    """Their time ends at any moment, also just as they end themselves, where this process stands still now and then."""
    store = RedisControlStore(f"{redis_server.url}?wait_replicas=1", Limits(timeout_seconds=0.05))
    rng = random.Random(0)

    async def stall() -> None:
        while True:
            time.sleep(rng.uniform(0, 0.02))
            await asyncio.sleep(0.002)

    async def look() -> None:
        with suppress(ControlUnavailable, TimeoutError):
            async with asyncio.timeout(rng.uniform(0, 0.03)):
                await store.position()

    stalling = asyncio.create_task(stall())
    for _ in range(60):
        await asyncio.gather(*(look() for _ in range(10)))
    stalling.cancel()
    async with asyncio.timeout(20):
        while store._redis.connection_pool._in_use_connections:
            await asyncio.sleep(0.01)
    await store.close()


async def test_what_a_replica_of_redis_has_is_told(
    redis_server: RedisServer, admin: Redis, start_redis: Callable[..., RedisServer]
) -> None:
    start_redis("--replicaof", "127.0.0.1", str(redis_server.port))
    careful = open_control_store(f"{redis_server.url}?wait_replicas=1", Limits(timeout_seconds=20))
    begun = (await careful.create({})).position
    write = await careful.write(begun, "a", {"key": b"1"})
    assert await careful.writes(begun) == [write]
    assert await careful.position() == write.position
    await careful.close()


async def test_a_key_of_another_kind_is_unavailable_in_a_sentence(store: ControlStore, admin: Redis) -> None:
    await admin.set(KEYS[0], "something else")
    with pytest.raises(ControlUnavailable, match=r"^Redis at [^ ]+ cannot serve the control store: WRONGTYPE[^.]+\.$"):
        await store.state()


async def test_a_write_is_one_round_trip(store: ControlStore, admin: Redis) -> None:
    position = (await store.create({})).position
    position = (await store.write(position, "a", {})).position
    await admin.config_resetstat()
    await store.write(position, "a", {"key": b"1", "other": None})
    calls = {name: stats["calls"] for name, stats in (await admin.info("commandstats")).items()}
    assert calls["cmdstat_evalsha"] == 1
    assert "cmdstat_script|load" not in calls


async def test_a_redis_without_memory_says_so_and_takes_nothing(start_redis: Callable[..., RedisServer]):
    server = start_redis("--maxmemory-policy", "noeviction")
    store = open_control_store(server.url, Limits(timeout_seconds=20))
    state = await store.create({"filter/one": b"1"})
    async with Redis(port=server.port) as admin:
        await admin.config_set("maxmemory", "1mb")
        with pytest.raises(ControlFull, match="cannot serve the control store: command not allowed when used memory > 'maxmemory'"):
            await store.write(state.position, "a", {"filter/two": b"2"})
        replica = Replica("a", state.position, True, None, 1.0, "1", "films")
        await store.announce(replica)
        assert await store.replicas() == [replica]
        for script, args in ((LOOK, ()), (LOG, (state.position.generation, state.position.revision, state.position.write_id, 1))):
            keys = [KEYS[0], *([KEYS[1]] if script == LOG else []), "{atspeed:control}:looks"]
            assert await admin.eval(script, len(keys), *keys, *args) is not None
        await admin.config_set("maxmemory", "0")
    assert await store.state() == state
    await store.close()
