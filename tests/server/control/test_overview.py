"""How replicas stand, and how a state that a store has lost is given back."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from server.control import NOWHERE, Position, follower, open_control_store, overview, reader
from server.control.announcer import Announcer
from server.control.follower import Follower
from server.control.overview import ControlOverview
from server.control.records import Record, VersionRecord, encode_filter, version_added
from server.errors import BackupRefused, CatalogRefused
from server.metrics.control import ControlMetrics
from server.try_again import ControlEmpty, ControlLost, ControlUnavailable, ReplicaBehind

ONE, TWO, THREE = (encode_filter(f"price < {number}") for number in (1, 2, 3))


class Replica:
    """A replica that serves whatever the state says, or fails as told."""

    has_more = False

    def __init__(self, url: str, name: str, settle_seconds: float = 0) -> None:
        self.refusal: str | None = None
        self.follower = Follower(open_control_store(url), name, settle_seconds=settle_seconds)
        self.follower.applier = self
        self.registry = CollectorRegistry()
        self.announcer = Announcer(self.follower, lambda: "films", self.follower.check)
        self.overview = ControlOverview(self.follower, self.announcer, ControlMetrics(self.registry))

    async def initial(self) -> Mapping[str, bytes]:
        return {}

    async def apply(self, record: Record) -> None:
        if self.refusal is not None:
            raise CatalogRefused(self.refusal)

    async def follow(self) -> None:
        try:
            async with self.follower.changing:
                await self.follower.catch_up()
        finally:
            self.overview.look()

    async def put(self, name: str, meaning: bytes) -> None:
        async with self.follower.changing:
            await self.follower.decide(lambda: self.follower.write({f"filter/{name}": meaning}))

    def metric(self, name: str) -> float | None:
        self.overview.look()
        return self.registry.get_sample_value(f"atspeed_control_{name}")


class Clock:
    """The time of replicas, which passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (follower, overview, reader):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Replica, Replica]]:
    replicas = tuple(Replica(f"sqlite:///{tmp_path}/control.db", name) for name in "ab")
    yield replicas[0], replicas[1]
    for replica in replicas:
        await replica.follower.store.close()


def empty(path: Path) -> None:
    """What FLUSHALL is to Redis."""
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM log")
        connection.execute("DELETE FROM entries")
    connection.close()


async def test_a_lost_state_is_given_back_from_the_memory_of_a_replica(two: tuple[Replica, Replica], tmp_path: Path):
    a, b = two
    with pytest.raises(ReplicaBehind, match="has not read"):
        await a.overview.backup()
    await a.follow()
    await a.put("one", ONE)
    await a.put("two", TWO)
    await b.follow()
    before = b.follower.read_position
    empty(tmp_path / "control.db")
    for replica in two:
        with pytest.raises(ControlLost, match="restore"):
            await replica.put("three", THREE)
        assert (replica.metric("lost"), replica.metric("up")) == (1, 1)
    file = await b.overview.backup()
    with pytest.raises(BackupRefused):
        await a.overview.restore(file[:-1])
    restored = await a.overview.restore(file)
    assert restored.revision > before.revision
    assert restored.generation != before.generation
    for replica in two:
        await replica.follow()
        assert (replica.follower.applied, replica.follower.values) == (restored, {"filter/one": ONE, "filter/two": TWO})
        assert (replica.metric("lost"), replica.metric("revision")) == (0, restored.revision)
    await b.put("three", THREE)


async def test_who_starts_just_after_a_state_is_lost_begins_no_other_in_its_place(
    two: tuple[Replica, Replica], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sleep, settle_seconds = asyncio.sleep, 3600.0

    async def hear_of_another(seconds: float) -> None:
        await (a.follower.store.announce(a.announcer.replica()) if seconds == settle_seconds else sleep(seconds))

    a, _ = two
    await a.follow()
    await a.put("one", ONE)
    empty(tmp_path / "control.db")
    newcomer = Replica(f"sqlite:///{tmp_path}/control.db", "c", settle_seconds)
    monkeypatch.setattr(asyncio, "sleep", hear_of_another)
    with pytest.raises(ControlEmpty):
        await newcomer.follow()
    assert await a.follower.store.state() is None
    await newcomer.follower.store.close()


@pytest.mark.parametrize("damaged", ["version/films", "filter/few"])
async def test_a_write_that_is_damaged_is_taken_as_a_store_that_is_away_until_another_state_is_restored(
    two: tuple[Replica, Replica], damaged: str
):
    """The follower goes on: processes that were started anew in its place could not read the state either, and serve nothing."""
    a, b = two
    await a.follow()
    file = await a.overview.backup()
    await b.follow()
    await b.follower.store.write(
        b.follower.read_position, "someone", version_added("shop", VersionRecord("f", 1.0)) | {damaged: b"none of these"}
    )
    following = asyncio.create_task(a.follower.follow())
    async with asyncio.timeout(20):
        while a.metric("up"):
            await asyncio.sleep(0.001)
        assert not a.follower.record.versions
        assert a.follower.read_position == a.follower.applied
        with pytest.raises(ControlUnavailable, match="restore"):
            await b.follow()
        await a.overview.restore(file)
        while not a.metric("up"):
            await asyncio.sleep(0.01)
    assert not following.done()
    following.cancel()


async def test_who_has_stopped_to_follow_for_a_fault_is_behind_for_longer_and_longer(
    clock: Clock, two: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
):
    async def fail(_: Record) -> None:
        raise RuntimeError

    a, _ = two
    await a.follow()
    assert a.follower.is_current
    monkeypatch.setattr(a, "apply", fail)
    await a.follower.store.write(a.follower.read_position, "another", {"filter/one": ONE})
    with pytest.raises(RuntimeError):
        await a.follower.follow()
    before = a.metric("behind_seconds")
    assert before is not None
    clock.passes(2)
    assert a.metric("behind_seconds") == before + 2


async def test_who_begins_is_not_behind_unless_that_has_ended_for_a_fault(clock: Clock, two: tuple[Replica, Replica]):
    a, _ = two
    clock.passes(2)
    a.follower.begun = False
    assert a.metric("behind_seconds") == 0
    a.follower.has_ended = True
    assert a.metric("behind_seconds") == 2


async def test_who_makes_a_change_is_behind_by_what_it_knows_of_alone(clock: Clock, two: tuple[Replica, Replica]):
    """A change may take as long as a catalog takes to load, and asks the store nothing meanwhile."""
    a, b = two
    await a.follow()
    await b.follow()
    a.overview.look()

    async def judge() -> None:
        clock.passes(2)
        assert a.follower.behind_seconds() >= 2
        assert a.metric("behind_seconds") == 0
        await a.follower.write({"filter/one": ONE})

    async with a.follower.changing:
        await a.follower.decide(judge)
        assert a.follower.behind_seconds() == 0
    clock.passes(2)
    assert a.metric("behind_seconds") == 2
    await b.put("two", TWO)
    a.refusal = "The model does not know its tokens."
    async with a.follower.changing:
        with pytest.raises(ReplicaBehind):
            await a.follower.decide(judge)
        a.overview.look()
        clock.passes(2)
        assert a.metric("behind_seconds") == 2


async def test_who_applies_for_long_what_others_have_written_is_behind(
    clock: Clock, two: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
):
    entered = asyncio.Event()

    async def take_long(_: Record) -> None:
        entered.set()
        await asyncio.sleep(60)

    a, b = two
    await a.follow()
    await b.put("one", ONE)
    monkeypatch.setattr(a, "apply", take_long)
    following = asyncio.create_task(a.follower.follow())
    await entered.wait()
    clock.passes(2)
    # The first look: that something was written has not been noted yet.
    assert a.metric("behind_seconds") == 2
    following.cancel()


async def test_a_restored_state_replaces_what_was_written_since(two: tuple[Replica, Replica]):
    a, b = two
    await a.follow()
    await a.put("one", ONE)
    file = await a.overview.backup()
    await b.put("one", TWO)
    await b.put("two", TWO)
    restored = await a.overview.restore(file)
    assert restored.revision > b.follower.read_position.revision
    await b.follow()
    assert b.follower.values == {"filter/one": ONE}


async def test_a_clock_that_is_set_back_hides_nobody_who_is_behind(
    clock: Clock, two: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
):
    a, b = two
    await a.follow()
    await b.follow()
    await a.put("one", ONE)
    a.overview.look()
    monkeypatch.setattr(clock, "time", lambda: 0.0)
    clock.passes(5)
    assert a.overview.behind_seconds(b.follower.applied) == 5


async def test_who_can_not_do_what_was_written_is_behind_since_then(clock: Clock, two: tuple[Replica, Replica]):
    a, b = two
    await a.follow()
    await b.follow()
    b.refusal = "The model does not know its tokens."
    await a.put("one", ONE)
    for second in range(4):
        with pytest.raises(ReplicaBehind):
            await b.follow()
        a.overview.look()
        clock.passes(1)
        b.overview.look()
        assert b.overview.behind_seconds(b.follower.applied) == second + 1
    assert a.overview.behind_seconds(a.follower.applied) == 0
    for replica in two:
        await replica.follower.store.announce(replica.announcer.replica())
    behind = next(each for each in await a.overview.replicas() if each.name == "b")
    assert (behind.ready, behind.problem) == (False, b.refusal)
    assert a.overview.behind_seconds(behind.position) == 4
    # A replica of a state before this one, or of none, is behind as well.
    assert a.overview.behind_seconds(Position("another", 99, "w")) == a.overview.behind_seconds(NOWHERE) == 4
    b.refusal = None
    await b.follow()
    assert b.overview.behind_seconds(b.follower.applied) == 0


async def test_while_the_store_is_away_a_replica_tells_of_itself(two: tuple[Replica, Replica], tmp_path: Path):
    a, b = two
    await a.follow()
    await b.follow()
    await b.follower.store.announce(b.announcer.replica())
    assert [each.name for each in await a.overview.replicas()] == ["a", "b"]
    with sqlite3.connect(tmp_path / "control.db") as connection:
        connection.execute("DROP TABLE replicas")
        connection.execute("DROP TABLE log")
    connection.close()
    assert [each.name for each in await a.overview.replicas()] == ["a"]
    with pytest.raises(ControlUnavailable):
        await a.follow()
    assert (a.metric("up"), a.metric("lost")) == (0, 0)
