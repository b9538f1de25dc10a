"""What only Redis can do to its callers: hang, die, come back, refuse, and hash keys to slots."""

import asyncio
import time
from contextlib import suppress
from functools import partial

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import Connection
from redis.exceptions import ClusterDownError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from server.errors import HistoryDamaged
from server.histories import Event, EventChoice, StoredUser, open_history_store
from server.histories import redis as redis_store
from server.try_again import HistoryUnavailable
from tests.services import REDIS_BINARY, REDIS_MISSING, RedisServer, free_port, make_certificate

pytestmark = pytest.mark.skipif(REDIS_BINARY is None, reason=REDIS_MISSING)

TIMEOUT_SECONDS = 0.2
# What a busy two-core machine may add to a timeout before the test calls it broken.
PATIENCE_SECONDS = 5.0


async def becomes_available(store):
    """Returns once the store answers again; while the machine is busy, it may not have the time."""
    async with asyncio.timeout(20):
        while True:
            with suppress(HistoryUnavailable):
                return await store.read("nobody")


async def assert_unavailable(store):
    """Every operation says so in one sentence, and in time."""
    for operation in (store.read("ann"), store.append("ann", [Event("lost", 0.0, "lost")]), store.delete("nobody")):
        begun = time.monotonic()
        with pytest.raises(HistoryUnavailable, match=r"^Redis at [^ ]+ [^\n]+\.$") as outage:
            await operation
        assert time.monotonic() - begun < TIMEOUT_SECONDS + PATIENCE_SECONDS
        assert ". " not in str(outage.value)


async def test_a_redis_that_hangs_is_unavailable_until_it_wakes(start_redis):
    server = start_redis()
    store = open_history_store(server.url, timeout_seconds=TIMEOUT_SECONDS)
    patient = open_history_store(server.url, timeout_seconds=10)
    kept = [Event("kept", 1.0, "kept")]
    await patient.append("ann", kept)
    server.pause()
    begun = time.monotonic()
    with pytest.raises(HistoryUnavailable, match=r"did not answer within 0\.2 s\.$"):
        await store.read("ann")
    assert time.monotonic() - begun >= TIMEOUT_SECONDS
    await assert_unavailable(store)
    server.resume()
    await becomes_available(store)
    # The append that timed out may have reached the server: sending it again is what makes it certain, and certain once.
    await patient.append("ann", [Event("lost", 0.0, "lost")])
    assert await patient.read("ann") == [Event("lost", 0.0, "lost"), *kept]
    await patient.close()
    await store.close()


async def test_many_requests_to_a_hanging_redis_all_fail_in_time_and_leave_no_connection_taken(start_redis):
    server = start_redis()
    store = open_history_store(server.url, timeout_seconds=1.0)
    server.pause()
    begun = time.monotonic()
    # If each waited its second from when it had one of the 64 connections, the last would have waited ten.
    answers = await asyncio.gather(*(store.read("ann") for _ in range(640)), return_exceptions=True)
    assert time.monotonic() - begun < 6
    assert {type(answer) for answer in answers} == {HistoryUnavailable}
    server.resume()
    patient = open_history_store(server.url, timeout_seconds=10)
    await patient.read("nobody")
    for _ in range(3):
        assert await asyncio.gather(*(store.read("ann") for _ in range(64))) == [[]] * 64
    await patient.close()
    await store.close()


async def test_nothing_acknowledged_is_lost_when_redis_is_killed(start_redis):
    server = start_redis()
    store = open_history_store(server.url, timeout_seconds=10)
    acknowledged, dying = [], asyncio.Event()

    async def write():
        try:
            for number in range(100_000):
                event = Event(str(number), float(number), str(number))
                with suppress(HistoryUnavailable):
                    await store.append("ann", [event])
                    acknowledged.append(event)
                if len(acknowledged) <= number:
                    return
                if number == 50:
                    dying.set()
        finally:
            # Whatever has ended it, nobody waits for it.
            dying.set()

    async def kill():
        await dying.wait()
        await asyncio.to_thread(server.kill)

    await asyncio.gather(write(), kill())
    await assert_unavailable(store)
    await asyncio.to_thread(server.start)
    shown = await store.read("ann")
    # The event in flight at the kill may have been stored as well.
    assert len(acknowledged) > 50
    assert shown[: len(acknowledged)] == acknowledged[-1000:]
    assert len(shown) <= len(acknowledged) + 1
    assert await store.append("ann", [acknowledged[-1], Event("after", 1e6)]) == 1
    await store.close()


async def test_a_pooled_connection_that_redis_closed_is_not_noticed_by_its_user(start_redis):
    server = start_redis()
    store = open_history_store(server.url, timeout_seconds=10)
    await store.append("ann", [Event("a", 1.0)])
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    assert await store.append("ann", [Event("b", 2.0)]) == 1
    assert await store.read("ann") == [Event("a", 1.0), Event("b", 2.0)]
    await store.close()


async def test_a_redis_that_was_never_up_is_unavailable_and_served_once_it_is(tmp_path):
    server = RedisServer(tmp_path)
    store = open_history_store(f"redis://:hunter2@127.0.0.1:{server.port}", timeout_seconds=10)
    await assert_unavailable(store)
    server.options = ("--requirepass", "hunter2")
    server.start()
    await store.read("nobody")
    await store.close()
    server.close()


async def test_a_refused_password_is_not_repeated(start_redis):
    server = start_redis("--requirepass", "right")
    store = open_history_store(f"redis://user:hunter2@127.0.0.1:{server.port}", timeout_seconds=10)
    with pytest.raises(HistoryUnavailable, match="password") as refusal:
        await store.read("nobody")
    assert "hunter2" not in str(refusal.value)
    assert str(server.port) in str(refusal.value)
    await store.close()


async def test_a_password_file_is_read_for_each_connection(start_redis, tmp_path):
    server = start_redis("--requirepass", "first")
    file = tmp_path / "password"
    store = open_history_store(f"redis://127.0.0.1:{server.port}?password_file={file}", timeout_seconds=10)
    with pytest.raises(HistoryUnavailable, match=f"the password file {file} cannot be read"):
        await store.read("nobody")
    file.write_text("first\n")
    await store.read("nobody")
    async with Redis(port=server.port, password="first") as admin:
        await admin.config_set("requirepass", "second")
        file.write_text("second")
        await admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await store.read("nobody")
    await store.close()


async def test_a_redis_that_takes_no_writes_is_unavailable_to_appends_only(start_redis):
    server = start_redis()
    store = open_history_store(server.url, timeout_seconds=10)
    await store.append("ann", [Event("a", 1.0)])
    async with Redis(port=server.port) as admin:
        await admin.config_set("maxmemory", "1")
        with pytest.raises(HistoryUnavailable, match="maxmemory"):
            await store.append("ann", [Event("b", 2.0)])
        assert await store.read("ann") == [Event("a", 1.0)]
        # A user whom it does not know takes memory like any other.
        keys = await admin.dbsize()
        for number, event_id in enumerate((None, "e1")):
            with pytest.raises(HistoryUnavailable, match="maxmemory"):
                await store.append(f"new-{number}", [Event("b", 2.0, event_id)])
            assert await store.read(f"new-{number}") == []
        assert await admin.dbsize() == keys
        # What frees memory is taken.
        limiting = open_history_store(server.url, timeout_seconds=10, ttl_seconds=3600)
        assert await limiting.limit_lives([].append, [].append) == 1
        await limiting.close()
        await admin.config_set("maxmemory", "0")
    assert await store.append("ann", [Event("b", 2.0)]) == 1
    await store.close()


async def test_a_write_is_acknowledged_only_when_a_replica_has_it(start_redis):
    master = start_redis()
    # Half of it is waited for a replica; the other half must be enough to be told that there is none.
    store = open_history_store(f"{master.url}?wait_replicas=1", timeout_seconds=2)
    with pytest.raises(HistoryUnavailable, match="on 0 of the 1 replicas"):
        await store.append("ann", [Event("a", 1.0, "a")])
    for delete in (store.delete, store.delete_profile):
        # One that deletes nothing, perhaps because an earlier attempt has, is not acknowledged either.
        with pytest.raises(HistoryUnavailable, match="on 0 of the 1 replicas"):
            await delete("bob")
    replica = start_redis("--replicaof", "127.0.0.1", str(master.port))
    async with Redis(port=replica.port, protocol=2) as admin:
        deadline = time.monotonic() + 10
        while (await admin.info("replication"))["master_link_status"] != "up":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        patient = open_history_store(f"{master.url}?wait_replicas=1", timeout_seconds=10)
        # The first attempt was stored although it was not acknowledged, as the contract allows.
        assert await patient.append("ann", [Event("a", 1.0, "a"), Event("b", 2.0, "b")]) == 1
        assert await admin.zcard("{atspeed:history:ann}:events") == 2
        await patient.put_profile("ann", {"age": 34})
        assert await admin.exists("{atspeed:history:ann}:profile") == 1
        assert await patient.delete_profile("ann") is True
        assert await admin.exists("{atspeed:history:ann}:profile") == 0
        assert await patient.delete("ann") is True
        assert await admin.keys("*") == []
        async with Redis(port=master.port, protocol=2) as there:
            for repeated in (patient.delete, patient.delete_profile, partial(patient.delete_events, chosen=EventChoice("a"))):
                written = (await there.info("persistence"))["rdb_changes_since_last_save"]
                # It may repeat one that the replica does not have yet, and Redis waits for what this connection has written.
                assert not await repeated("ann")
                assert (await there.info("persistence"))["rdb_changes_since_last_save"] > written
        assert await admin.keys("*") == []
    await patient.close()
    await store.close()


async def test_append_and_read_are_one_round_trip_each(redis_server):
    store = open_history_store(redis_server.url, timeout_seconds=10, key_prefix="trips", ttl_seconds=60)
    await store.append("ann", [Event("warm", 0.0)])
    async with Redis(port=redis_server.port) as admin:
        await admin.config_resetstat()
        await store.append("ann", [Event(str(t), float(t), str(t)) for t in range(100)])
        await store.read("ann")
        info = await admin.info("commandstats")
        keys = [key async for key in admin.scan_iter("{trips:*")]
        lives = [await admin.pttl(key) for key in keys]
    from_client = {
        name.removeprefix("cmdstat_"): stat["calls"] for name, stat in info.items() if name in ("cmdstat_evalsha", "cmdstat_zrange")
    }
    # The script runs none of its own where the order of arrival is known.
    assert from_client == {"evalsha": 1, "zrange": 1}
    assert not {"cmdstat_script|load", "cmdstat_hello", "cmdstat_select"} & info.keys()
    assert sorted(keys) == [b"{trips:ann}:events", b"{trips:ann}:ids", b"{trips:ann}:order"]
    assert all(59_000 < life <= 60_000 for life in lives)
    await store.close()


async def test_a_user_is_read_and_a_profile_put_in_one_round_trip_each(redis_server, monkeypatch):
    """A round trip is a piece that is sent; a script that the server does not have yet costs one more, once."""
    sent = []
    send = Connection.send_packed_command

    async def count(self, command, *rest, **more):
        sent.append(command)
        await send(self, command, *rest, **more)

    store = open_history_store(redis_server.url, timeout_seconds=10, key_prefix="together", ttl_seconds=60)
    await store.append("ann", [Event("a", 1.0)])
    await store.put_profile("ann", {})
    monkeypatch.setattr(Connection, "send_packed_command", count)
    await store.put_profile("ann", {"age": 34})
    assert len(sent) == 1
    assert await store.read_user("ann") == StoredUser([Event("a", 1.0)], {"age": 34})
    assert len(sent) == 2
    await store.append("ann", [Event("b", 2.0, None, "buy", 2.0, {"shop": 7})])
    assert len(sent) == 3
    monkeypatch.undo()
    async with Redis(port=redis_server.port) as admin:
        keys = sorted([key async for key in admin.scan_iter("{together:*")])
        assert keys == [b"{together:ann}:%b" % name for name in (b"events", b"ids", b"order", b"profile")]
        assert all([59_000 < await admin.pttl(key) <= 60_000 for key in keys])
        # An event of which nothing more is told takes no room for it.
        members = await admin.zrange("{together:ann}:events", 0, -1)
        assert [member[10:] for member in members] == [b'[null,"a"]', b'[null,"b","buy",2.0,{"shop":7}]']
    assert await store.delete("ann") is True
    async with Redis(port=redis_server.port) as admin:
        assert [key async for key in admin.scan_iter("{together:*")] == []
    await store.close()


async def test_a_profile_that_is_none_is_damage_and_can_be_put_anew(redis_server):
    store = open_history_store(redis_server.url, timeout_seconds=10, key_prefix="odd-profile")
    await store.append("ann", [Event("a", 1.0)])
    async with Redis(port=redis_server.port) as admin:
        for odd in (b"", b"x", b"[]", b'{"a": null}', b'{"a": {"b": 1}}', b"\xff" * 20):
            await admin.set("{odd-profile:ann}:profile", odd)
            with pytest.raises(HistoryDamaged, match=r"^What is stored for user 'ann' is damaged"):
                await store.read_user("ann")
            await store.put_profile("ann", {"age": 1})
            assert await store.read_user("ann") == StoredUser([Event("a", 1.0)], {"age": 1})
    await store.close()


async def test_without_a_time_to_live_an_earlier_one_is_lifted(redis_server):
    for ttl_seconds in (60, None):
        store = open_history_store(redis_server.url, timeout_seconds=10, key_prefix="lifted", ttl_seconds=ttl_seconds)
        await store.append("ann", [Event("a", 1.0)])
        await store.close()
    async with Redis(port=redis_server.port) as admin:
        assert [await admin.pttl(f"{{lifted:ann}}:{name}") for name in ("events", "order", "ids")] == [-1, -1, -1]


async def test_the_memory_of_ids_is_as_bounded_as_the_history(redis_server):
    store = open_history_store(redis_server.url, timeout_seconds=10, key_prefix="bounded", max_events=5)
    for start in range(0, 100, 10):
        await store.append("ann", [Event("a", float(t), str(t)) for t in range(start, start + 10)])
    async with Redis(port=redis_server.port) as admin:
        assert await admin.zcard("{bounded:ann}:events") == 5
        assert await admin.llen("{bounded:ann}:order") == 5
        # The last arrival, the ids that are remembered, and as many again before they are let go.
        assert await admin.hlen("{bounded:ann}:ids") <= 1 + 3 * 5
    await store.close()


async def test_ids_do_not_outlive_a_history_that_redis_evicted(redis_server):
    store = open_history_store(redis_server.url, timeout_seconds=10, key_prefix="evicted")
    await store.append("ann", [Event("a", 1.0, "e1")])
    async with Redis(port=redis_server.port) as admin:
        await admin.delete("{evicted:ann}:events")
    assert await store.append("ann", [Event("a", 1.0, "e1")]) == 1
    await store.close()


async def test_a_cluster_takes_both_keys_of_a_user(start_redis):
    """A cluster of one node refuses, as any cluster does, a script whose keys hash to different slots."""
    server = start_redis("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    async with Redis(port=server.port) as admin:
        await admin.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + 10
        while (await admin.execute_command("CLUSTER INFO"))["cluster_state"] != "ok":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
    store = open_history_store(server.url, timeout_seconds=10)
    for user in ("ann", "", "}", "{}", "a}b{c"):
        assert await store.append(user, [Event("a", 1.0, "e1")]) == 1
        assert await store.read(user) == [Event("a", 1.0, "e1")]
        assert await store.delete(user) is True
    await store.close()


async def test_tls_checks_the_certificate(start_redis, tmp_path):
    certificate, key = make_certificate(tmp_path)
    tls = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no")
    server = start_redis(*tls, tls=True)
    trusting = open_history_store(f"rediss://127.0.0.1:{server.port}?ssl_ca_certs={certificate}", timeout_seconds=10)
    assert await trusting.append("ann", [Event("a", 1.0)]) == 1
    assert await trusting.read("ann") == [Event("a", 1.0)]
    await trusting.close()
    wary = open_history_store(f"rediss://127.0.0.1:{server.port}", timeout_seconds=10)
    with pytest.raises(HistoryUnavailable, match="certificate"):
        await wary.read("ann")
    await wary.close()


async def test_a_member_that_is_none_of_ours_costs_no_other_event(redis_server):
    reports = []
    store = open_history_store(
        redis_server.url, timeout_seconds=10, key_prefix="odd", max_events=6, on_damage=lambda *report: reports.append(report)
    )
    await store.append("ann", [Event("a", 1.0, "a"), Event("b", 2.0, "b")])
    odd = [b"", b"x", b"0000000009{", b'0000000009["id"]', b'0000000009[1, "item"]', b'0000000009[null, "\\ud800"]', b"\xff" * 20]
    async with Redis(port=redis_server.port) as admin:
        for member in odd:
            await admin.zadd("{odd:ann}:events", {member: 1.5})
        await admin.zadd("{odd:ann}:events", {b'0000000009[null, "never"]': "inf"})
        assert await store.read("ann") == [Event("b", 2.0, "b")]
        assert await store.read("ann", 20) == [Event("b", 2.0, "b")]
        assert len(reports) == 10
        assert set(reports) == {("event", f"A stored event in Redis at 127.0.0.1:{redis_server.port} can't be read and is passed over.")}
        for number in range(6):
            assert await store.append("ann", [Event(str(number), 3.0 + number, str(number))]) == 1
        assert [event.item_id for event in await store.read("ann")] == ["0", "1", "2", "3", "4", "5"]
        assert await admin.zcard("{odd:ann}:events") == 6
    await store.close()


@pytest.mark.parametrize(("name", "text"), [("events", b"a"), ("ids", b"a"), ("profile", b"a"), ("profile", b'{"a": "\xff"}')])
async def test_a_key_of_another_kind_is_damage_of_its_user_alone(redis_server, name, text):
    store = open_history_store(redis_server.url, timeout_seconds=10, key_prefix=f"kinds-{name}")
    await store.delete("bob")
    await store.append("bob", [Event("a", 1.0)])
    async with Redis(port=redis_server.port) as admin:
        await admin.set(f"{{kinds-{name}:ann}}:{name}", text)
        if name != "events":
            await admin.zadd(f"{{kinds-{name}:ann}}:events", {b'0000000001[null, "a"]': 1.0})
    failing = store.read_user("ann") if name == "profile" else store.append("ann", [Event("a", 1.0)])
    with pytest.raises(HistoryDamaged, match=r"^What is stored for user 'ann' is damaged"):
        await failing
    assert await store.read("bob") == [Event("a", 1.0)]
    assert await store.delete("ann") is True
    assert await store.append("ann", [Event("b", 1.0)]) == 1
    assert await store.read("ann") == [Event("b", 1.0)]
    await store.close()


async def test_a_key_of_another_kind_is_damage_in_the_words_of_redis_6_too(redis_server, monkeypatch):
    store = open_history_store(redis_server.url, timeout_seconds=10, key_prefix="kinds-6")

    async def refuse(*_, **__):
        wrong = "WRONGTYPE Operation against a key holding the wrong kind of value"
        raise ResponseError(f"Error running script (call to f_8a7d): @user_script:5: @user_script: 5: {wrong} ")

    monkeypatch.setattr(store._access, "write", refuse)
    with pytest.raises(HistoryDamaged, match=r"^What is stored for user 'ann' is damaged"):
        await store.append("ann", [Event("a", 1.0)])
    await store.close()


async def test_an_order_of_arrival_that_redis_evicted_is_made_anew(redis_server):
    store = open_history_store(redis_server.url, timeout_seconds=10, key_prefix="orderless", max_events=3)
    await store.append("ann", [Event(str(t), float(t), str(t)) for t in range(3)])
    async with Redis(port=redis_server.port) as admin:
        for lost in ("order", "ids"):
            await admin.delete(f"{{orderless:ann}}:{lost}")
            assert await store.append("ann", [Event("0", 0.0, "0"), Event("1", 1.0, "1"), Event("2", 2.0, "2")]) == 0
            assert [event.item_id for event in await store.read("ann")] == ["0", "1", "2"]
    assert await store.append("ann", [Event("3", 2.0, "3")]) == 1
    assert [event.item_id for event in await store.read("ann")] == ["1", "2", "3"]
    await store.close()


async def test_a_sample_is_found_among_keys_of_others_and_has_nobody_twice(start_redis, monkeypatch):
    """A scan over all keys takes longer than an operation may, and tells keys again, as Redis may."""
    server = start_redis()
    store = open_history_store(server.url, timeout_seconds=1.0)
    users = [f"u{number}" for number in range(8)]
    await store.append_many({user: [Event(f"of {user}", 1.0)] for user in users})
    async with Redis(port=server.port) as admin:
        await admin.mset({f"of others:{number}": "" for number in range(12_000)})
    scan, scans = Redis.scan, []

    async def slow(*arguments, **named):
        scans.append(arguments)
        await asyncio.sleep(0.1)
        cursor, keys = await scan(*arguments, **named)
        return cursor, [*keys, *keys]

    monkeypatch.setattr(Redis, "scan", slow)
    found = await store.sample(1000, 3)
    assert len(scans) > 15
    assert sorted(event.item_id for (event,) in found) == [f"of {user}" for user in users]
    assert len(await store.sample(5, 3)) == 5
    await store.close()


@pytest.mark.parametrize(
    ("error", "is_damage"),
    [
        (ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), True),
        (ClusterDownError("CLUSTERDOWN The cluster is down"), False),
        (RedisConnectionError("Connection closed by server."), False),
    ],
)
async def test_a_sample_is_not_short_because_a_server_of_a_cluster_fails(start_redis, monkeypatch, error, is_damage):
    """Its pipeline gives an error in place of each answer of that server, among those of the others."""
    store = open_history_store(start_redis().url, timeout_seconds=20)
    await store.append_many({user: [Event(f"of {user}", 1.0)] for user in ("ann", "bob")})
    execute = Pipeline.execute

    async def fail_partly(*arguments, **named):
        return [error, *(await execute(*arguments, **named))[1:]]

    monkeypatch.setattr(Pipeline, "execute", fail_partly)
    if is_damage:
        assert len(await store.sample(10, 3)) == 1
    else:
        with pytest.raises(HistoryUnavailable, match="cannot serve histories"):
            await store.sample(10, 3)
    await store.close()


async def test_of_calls_side_by_side_all_have_ended_when_a_failure_is_raised_and_no_more_begin(monkeypatch):
    monkeypatch.setattr(redis_store, "_CALLS_TOGETHER", 2)
    ended = []

    async def call(name):
        await asyncio.sleep(0)
        ended.append(name)
        raise HistoryUnavailable(name)

    with pytest.raises(HistoryUnavailable, match=r"^first$"):
        await redis_store._together([partial(call, name) for name in ("first", "second", "third")])
    assert ended == ["first", "second"]
