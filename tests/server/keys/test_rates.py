"""Rates of keys: over replicas that share a Redis, alone, and while that Redis is away."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import limits.aio.storage.memory as memory_module
import pytest
from prometheus_client import CollectorRegistry

from server.errors import KeyForbids
from server.keys import rates as rates_module
from server.keys.gate import Gate
from server.keys.key import Key, Scope
from server.keys.rates import Rates
from server.metrics.keys import RATES_SECONDS, KeyMetrics
from server.try_again import KeyBusy
from tests.services import REDIS_BINARY, REDIS_MISSING, RedisServer

needs_redis = pytest.mark.skipif(REDIS_BINARY is None, reason=REDIS_MISSING)
AMOUNT = 40


def key(rate: str | None = f"{AMOUNT}/second", name: str = "shop") -> Key:
    return Key(name=name, sha256="0" * 64, scopes=tuple(Scope), rate=rate)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer than requests wait."""
    monkeypatch.setattr(rates_module, "PATIENCE_SECONDS", 10.0)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with_rates = RedisServer(tmp_path, "--appendonly", "no").start()
    yield with_rates
    with_rates.close()


def replica(url: str = "memory://", registry: CollectorRegistry | None = None, **prefix: str) -> Rates:
    return Rates(url, KeyMetrics(registry or CollectorRegistry()), **prefix)


async def passes(rates: Rates, holder: Key, count: int = 1) -> bool:
    try:
        await rates.take(holder, count)
    except KeyBusy:
        return False
    return True


async def let_through(replicas: list[Rates], holder: Key, going_on: Callable[[], bool]) -> int:
    """How many of the requests that keep coming at all replicas get through."""
    passed = 0
    for rates in itertools.cycle(replicas):
        if not going_on():
            return passed
        passed += await passes(rates, holder)
    return passed


@needs_redis
async def test_three_replicas_let_through_one_rate(redis: RedisServer):
    replicas = [replica(redis.url) for _ in range(3)]
    began = time.monotonic()
    passed = await let_through(replicas, key(), lambda: time.monotonic() - began < 1.2)
    # However slow this machine is: what is late lets through less.
    assert AMOUNT <= passed <= 1.05 * AMOUNT * (time.monotonic() - began) + 1
    assert await passes(replicas[0], key(name="other"), AMOUNT)
    # A server of another model on the same Redis, whose keys have names of its own.
    replicas.append(replica(redis.url, key_prefix="shop-b"))
    assert await passes(replicas[-1], key(name="other"), AMOUNT)
    for rates in replicas:
        await rates.close()


async def test_a_rate_is_held_without_a_redis_and_a_batch_counts_by_its_lists():
    rates = replica()
    assert await passes(rates, key("10/day"), 8)
    assert not await passes(rates, key("10/day"), 3)
    assert await passes(rates, key("10/day"), 2)
    with pytest.raises(KeyBusy, match=r"The key 'shop' may ask for no more than 10/day\.") as raised:
        await rates.take(key("10/day"))
    assert raised.value.retry_after_seconds == 8640
    with pytest.raises(KeyForbids, match="may ask for 10/day, and these are more lists at once"):
        await rates.take(key("10/day"), 11)
    assert all([await passes(rates, key(None)) for _ in range(100)])


@pytest.mark.parametrize(("workers", "size", "amount"), [(1, 100, 100), (3, 100, 100), (4, 256, 256), (4, 200, 256)])
async def test_clients_that_come_again_when_told_get_full_batches(workers: int, size: int, amount: int, monkeypatch: pytest.MonkeyPatch):
    """At least one in two windows; a batch is charged once it has been read, behind the gate."""
    clock = SimpleNamespace(time=lambda: now)
    monkeypatch.setattr(memory_module, "time", clock)
    rates, holder = replica(), key(f"{amount}/minute")
    gate = Gate(None, rates, KeyMetrics(CollectorRegistry()))
    comes = [0.3 * worker for worker in range(workers)]
    windows, passed = 20, 0
    while min(comes) < 60 * windows:
        worker = comes.index(min(comes))
        now = 6e8 + comes[worker]
        try:
            await gate.enter(holder, 0)
            try:
                await gate.charge(holder, size)
            finally:
                gate.leave(holder)
        except KeyBusy as busy:
            comes[worker] += busy.retry_after_seconds + 0.01 * worker
        else:
            passed += 1
            comes[worker] += 1
    assert passed >= windows / 2


async def test_whether_one_request_may_pass_is_asked_without_counting():
    rates = replica()
    for lists in (8, 1, 1):
        for _ in range(3):
            await rates.check(key("10/day"))
        assert await passes(rates, key("10/day"), lists)
    with pytest.raises(KeyBusy, match=r"The key 'shop' may ask for no more than 10/day\.") as raised:
        await rates.check(key("10/day"))
    assert raised.value.retry_after_seconds == 8640
    await rates.check(key(None))


async def test_a_batch_that_is_refused_leaves_the_window_as_it_was():
    rates, holder = replica(), key("10/day")
    assert [await passes(rates, holder, lists) for lists in (4, 7, 7, 6, 1)] == [True, False, False, True, False]


@needs_redis
async def test_without_its_redis_a_replica_goes_on_by_itself_and_waits_once(redis: RedisServer, monkeypatch: pytest.MonkeyPatch):
    registry, holder = CollectorRegistry(), key("3/day")
    rates = replica(redis.url, registry)
    assert [await passes(rates, holder) for _ in range(2)] == [True, True]
    asked = 0
    hit = rates._fleet.hit

    async def counted(*arguments: object, **named: object) -> bool:
        nonlocal asked
        asked += 1
        return await hit(*arguments, **named)

    monkeypatch.setattr(rates._fleet, "hit", counted)
    monkeypatch.setattr(rates_module, "AWAY_SECONDS", 3600.0)
    redis.kill()
    assert [await passes(rates, holder) for _ in range(4)] == [True, True, True, False]
    assert (asked, registry.get_sample_value("atspeed_key_rates_local")) == (1, 1)
    redis.start()
    rates._asked_again_at = 0.0
    # It remembers nothing, as it keeps nothing on disk.
    assert await asyncio.gather(*(passes(rates, holder) for _ in range(4))) == [True, False, False, False]
    assert [await passes(rates, holder) for _ in range(3)] == [True, True, False]
    assert registry.get_sample_value("atspeed_key_rates_local") == 0
    await rates.close()


def test_rates_that_nobody_asks_for_are_not_told_to_be_held_by_each_replica():
    """A Redis that was away for the last request of an evening would be told to be so until the first of the morning."""
    now, registry = [0.0], CollectorRegistry()
    metrics = KeyMetrics(registry, lambda: now[0])

    def held(at: float) -> float | None:
        now[0] = at
        return registry.get_sample_value("atspeed_key_rates_local")

    assert held(0.0) == 0
    metrics.rates_away("It is away.")
    assert [held(0.9 * RATES_SECONDS), held(1.1 * RATES_SECONDS)] == [1, 0]
    metrics.rates_away("It is away.")
    metrics.rates_answered()
    assert held(1.2 * RATES_SECONDS) == 0
