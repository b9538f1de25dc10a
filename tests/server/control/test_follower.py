"""What one replica makes of a store that does not confirm what it holds, that refuses writes, or that stands still."""

import asyncio
import logging
import zlib
from collections.abc import Mapping

import msgspec
import pytest

from drafting.catalog.text_column import TextColumn
from server.control import Limits, Position, Replica, Write, records
from server.control import follower as follower_module
from server.control.follower import TRIES, Follower
from server.control.memory import MemoryControlStore
from server.control.names import replica_name
from server.control.records import FORM, WRITTEN_IN, FilterRecord, Record, decode_filter, encode_filter
from server.try_again import ControlConflict, ControlUnavailable, ReplicaBehind

MEANING = encode_filter("price < 5")


class Unsure(MemoryControlStore):
    """A Redis whose replicas may be gone: what it holds may be lost."""

    def __init__(self) -> None:
        super().__init__(Limits(announced_seconds=0.3))
        self.is_confirmed = self.takes_writes = True

    async def position(self) -> Position | None:
        self._confirm(may=self.is_confirmed)
        return await super().position()

    async def writes(self, after: Position) -> list[Write] | None:
        self._confirm(may=self.is_confirmed)
        return await super().writes(after)

    async def write(self, after: Position, by: str, changes: Mapping[str, bytes | None]) -> Write:
        self._confirm(may=self.takes_writes)
        return await super().write(after, by, changes)

    def _confirm(self, *, may: bool) -> None:
        if not may:
            raise ControlUnavailable("Redis has stored it on 0 of 2.")


class Applied:
    """An `Applier` that keeps what it is told."""

    has_more = False

    def __init__(self) -> None:
        self.filters: list[dict[str, bytes]] = []

    async def initial(self) -> Mapping[str, bytes]:
        return {}

    async def apply(self, record: Record) -> None:
        self.filters.append(dict(record.filters))


@pytest.fixture
def store() -> Unsure:
    return Unsure()


def follower_of(store: Unsure, name: str) -> tuple[Follower, Applied]:
    follower, applied = Follower(store, name), Applied()
    follower.applier = applied
    return follower, applied


async def catch_up(follower: Follower) -> None:
    async with follower.changing:
        await follower.catch_up()


async def put(follower: Follower, name: str) -> None:
    async with follower.changing:
        await follower.decide(lambda: follower.write({f"filter/{name}": MEANING}))


async def test_what_is_not_confirmed_is_not_applied(store: Unsure):
    (one, _), (two, applied) = follower_of(store, "one"), follower_of(store, "two")
    await catch_up(two)
    await put(one, "sure")
    await catch_up(two)
    position = one.read_position
    await store.write(position, "who was not answered", {"filter/open": MEANING})
    store.is_confirmed = False
    with pytest.raises(ControlUnavailable):
        await catch_up(two)
    assert two.away_since is not None
    assert (two.applied, applied.filters[-1]) == (position, {"sure": MEANING})
    store.is_confirmed = True
    await catch_up(two)
    assert two.away_since is None
    assert applied.filters[-1] == {"sure": MEANING, "open": MEANING}


async def test_who_begins_does_so_with_what_there_is(store: Unsure):
    one, _ = follower_of(store, "one")
    await catch_up(one)
    await put(one, "few")
    store.is_confirmed = False
    late, _ = follower_of(store, "late")
    async with late.changing:
        # A server that can't begin yet, for whatever reason, tries again.
        for _ in range(2):
            await late.read_on(begins=True)
            assert set(late.record.filters) == {"few"}
            with pytest.raises(ControlUnavailable):
                await late.catch_up()
    store.is_confirmed = True
    await catch_up(late)
    assert late.away_since is None


@pytest.mark.parametrize("damaged", [{"version/v2": b"\x81\xa4file\xa1\xff"}, {"filter/few": MEANING[:-1]}])
async def test_who_begins_with_what_is_damaged_is_told_so_and_begins_once_it_is_restored(store: Unsure, damaged: dict[str, bytes]):
    await store.create(damaged)
    late, applied = follower_of(store, "late")
    for _ in range(2):
        with pytest.raises(
            ControlUnavailable, match=r"^The control store holds what can't be read \(.+\): restore it with atspeed control"
        ):
            await catch_up(late)
    await store.replace({"filter/restored": MEANING}, 0)
    await catch_up(late)
    assert applied.filters == [{"restored": MEANING}]


@pytest.mark.parametrize(
    "value", [b"", b"\xa1\xff", msgspec.msgpack.encode(FilterRecord(None, b"no zlib", b"")), encode_filter("price < 5")[:-3]]
)
def test_a_filter_that_is_damaged_is_told(value: bytes):
    with pytest.raises(ControlUnavailable):
        decode_filter(value)


@pytest.mark.parametrize(("lengths", "data"), [([5], b"four"), ([2**32 - 1], b"four"), ([], b"four"), ([4], b""), ([2000], bytes(2000))])
def test_names_of_a_filter_that_are_other_than_it_says_or_more_than_any_are_told(
    lengths: list[int], data: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(records, "_MOST_NAME_BYTES", 1000)
    written = b"".join(length.to_bytes(4, "little") for length in lengths)
    with pytest.raises(ControlUnavailable, match="restore it"):
        decode_filter(msgspec.msgpack.encode(FilterRecord(None, zlib.compress(written), zlib.compress(data))))


def test_names_of_a_filter_come_back():
    names = ["a", "", "ü" * 100]
    found = decode_filter(encode_filter(TextColumn.of(names)))
    assert isinstance(found, TextColumn)
    assert list(found) == names


async def test_a_replica_knows_since_when_it_can_not_know(store: Unsure, monkeypatch: pytest.MonkeyPatch):
    clock = [50.0]
    monkeypatch.setattr("server.control.follower.time.monotonic", lambda: clock[0])
    one, _ = follower_of(store, "one")
    clock[0] += 3
    assert one.behind_seconds() == 3
    await catch_up(one)
    assert one.behind_seconds() == 0
    clock[0] += 2
    store.is_confirmed = False
    with pytest.raises(ControlUnavailable):
        await catch_up(one)
    assert one.behind_seconds() == 2
    store.is_confirmed = True
    await catch_up(one)
    assert one.behind_seconds() == 0


async def test_a_store_that_only_refuses_writes_is_not_away_and_is_told_of_once(store: Unsure, caplog: pytest.LogCaptureFixture):
    one, _ = follower_of(store, "one")
    await catch_up(one)
    with caplog.at_level(logging.INFO):
        for takes_writes in (False, False, True, False):
            store.takes_writes = takes_writes
            try:
                await put(one, "few")
            except ControlUnavailable:
                assert not takes_writes
            await catch_up(one)
            assert one.away_since is None
    assert [record.getMessage() for record in caplog.records] == ["a change can't be stored: Redis has stored it on 0 of 2."] * 2


async def test_who_begins_anew_waits_for_the_one_before_it_to_be_silent(store: Unsure):
    one, _ = follower_of(store, replica_name())
    await catch_up(one)
    host, number, _ = one.name.split("/")
    former = Replica(
        f"{host}/{number}/0123456789abcdef", one.read_position, ready=True, problem=None, started_at=0.0, software="", version=""
    )
    await store.announce(former)
    assert not await one.is_alone()
    async with asyncio.timeout(5):
        assert await one.is_alone(ready=True)


async def test_what_a_later_release_writes_in_a_form_of_its_own_is_not_read(store: Unsure):
    (one, applied), (late, _) = follower_of(store, "one"), follower_of(store, "late")
    await catch_up(one)
    await put(one, "few")
    form = msgspec.msgpack.encode(FORM + 1)
    await store.write(
        one.read_position, "a later release", {WRITTEN_IN: form, "filter/few": b"2", "version/x": b"no version of this release"}
    )
    for follower in (one, late):
        with pytest.raises(ReplicaBehind, match="a later release of the server has written what this one can't read: update it"):
            await put(follower, "more")
        with pytest.raises(ReplicaBehind):
            follower.check()
    assert (one.record.filters, applied.filters[-1]) == ({"few": MEANING}, {})
    # When its state is replaced by one of this release, it is followed again.
    await store.replace({"filter/old": MEANING}, 0)
    await catch_up(one)
    assert applied.filters[-1] == {"old": MEANING}
    one.check()


async def test_a_change_before_which_others_write_again_and_again_is_given_up_and_changes_nothing(
    store: Unsure, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(follower_module, "_PAUSE_SECONDS", 0.0)
    one, _ = follower_of(store, "one")
    judged = 0

    async def judge() -> None:
        nonlocal judged
        judged += 1
        await store.write(one.read_position, "another", {"filter/few": encode_filter(f"price < {judged}")})
        await one.write({"filter/few": MEANING})

    async with one.changing:
        with pytest.raises(ControlConflict):
            await one.decide(judge)
    assert judged == TRIES
    await catch_up(one)
    assert one.record.filters == {"few": encode_filter(f"price < {TRIES}")}


async def test_who_ends_writes_what_it_has_decided_by_itself_and_waits_for_nobody(
    store: Unsure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    one, applied = follower_of(store, "one")
    await catch_up(one)
    await one.end()
    assert len(applied.filters) == 1, "nothing is left to do"
    applied.has_more = True
    await one.end()
    assert len(applied.filters) == 2
    store.is_confirmed = False
    await one.end()
    sentence = "what this server has decided by itself is not written: "
    assert caplog.messages[-1] == f"{sentence}Redis has stored it on 0 of 2."
    monkeypatch.setattr(follower_module, "END_SECONDS", 0.0)
    async with one.changing:
        await one.end()
    assert caplog.messages[-1] == sentence
    assert len(applied.filters) == 2
