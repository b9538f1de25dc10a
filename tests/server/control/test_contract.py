"""What every control store promises, asked of each of them in the same words."""

import asyncio
import random
import time
from dataclasses import replace

import pytest

from server.control import NOWHERE, ControlStore, Position, Replica, State, open_control_store
from server.try_again import ControlConflict
from tests.server.control.conftest import StoreFactory

REPLICA = Replica("a", NOWHERE, ready=False, problem="It starts.", started_at=1.5, software="0.1.0", version="")
ODD_KEYS = ["", " ", ":", "{", "}", "revision", "generation", "filter/naïve 🎬", "nul\x00byte", "line\nfeed", "x" * 2000]


async def test_an_empty_store_has_no_state_and_takes_no_write(store: ControlStore) -> None:
    assert await store.state() is None
    assert await store.position() is None
    assert await store.writes(NOWHERE) is None
    with pytest.raises(ControlConflict):
        await store.write(NOWHERE, "a", {"key": b"value"})
    assert await store.state() is None
    assert await store.replicas() == []


async def test_a_state_is_created_once(store: ControlStore) -> None:
    created = await store.create({"key": b"value"})
    assert created.position.generation
    assert created.position.revision == 0
    assert created == State(created.position, {"key": b"value"})
    with pytest.raises(ControlConflict):
        await store.create({})
    assert await store.state() == created
    assert await store.position() == created.position
    assert await store.writes(created.position) == []


async def test_a_write_changes_what_it_names_and_is_in_the_log(store: ControlStore) -> None:
    begun = (await store.create({"kept": b"1", "changed": b"1", "deleted": b"1"})).position
    changes = {"changed": b"\x00\xff\r\n", "deleted": None, "new": b"", "never there": None}
    write = await store.write(begun, "replica a", changes)
    assert write.position.generation == begun.generation
    assert write.position.revision == begun.revision + 1
    assert write.position.write_id not in ("", begun.write_id)
    assert write.by == "replica a"
    assert abs(write.at - time.time()) < 60
    assert write.changes == changes
    assert await store.writes(begun) == [write]
    assert await store.writes(write.position) == []
    assert await store.state() == State(write.position, {"kept": b"1", "changed": b"\x00\xff\r\n", "new": b""})


async def test_a_write_at_another_position_changes_nothing(store: ControlStore) -> None:
    begun = (await store.create({"key": b"1"})).position
    first = await store.write(begun, "a", {"key": b"2"})
    last = await store.write(first.position, "a", {"key": b"3"})
    elsewhere = [
        NOWHERE,
        begun,
        first.position,
        replace(last.position, generation="another"),
        replace(last.position, revision=3),
        replace(last.position, revision=-1),
        replace(last.position, write_id="another"),
    ]
    for position in elsewhere:
        with pytest.raises(ControlConflict):
            await store.write(position, "b", {"key": b"4", "other": b"4"})
    assert await store.state() == State(last.position, {"key": b"3"})
    assert await store.writes(begun) == [first, last]


async def test_the_log_says_nothing_of_positions_that_are_not_its_own(store: ControlStore) -> None:
    begun = (await store.replace({}, revision=4)).position
    last = (await store.write(begun, "a", {"key": b"1"})).position
    for changed in ({"generation": "another"}, {"write_id": "another"}, {"revision": 4}, {"revision": 7}, {"revision": 5}):
        assert await store.writes(replace(last, **changed)) is None, changed


async def test_a_restored_state_is_of_another_generation_and_a_higher_revision(store: ControlStore) -> None:
    restored = await store.replace({"key": b"0"}, revision=41)
    assert restored.position.revision == 42
    last = (await store.write(restored.position, "a", {"key": b"1", "gone": b"1"})).position
    again = await store.replace({"key": b"2"}, revision=3)
    assert again.position.revision == 44
    assert again.position.generation not in ("", last.generation)
    assert await store.state() == again == State(again.position, {"key": b"2"})
    assert await store.writes(last) is None
    assert await store.writes(again.position) == []
    with pytest.raises(ControlConflict):
        await store.write(last, "a", {})
    await store.write(again.position, "a", {})


async def test_keys_are_any_text(store: ControlStore) -> None:
    values = {key: key.encode() for key in ODD_KEYS}
    begun = await store.create(values)
    assert await store.state() == begun
    write = await store.write(begun.position, "", {key: key.encode() * 2 for key in ODD_KEYS})
    assert await store.state() == State(write.position, {key: value * 2 for key, value in values.items()})
    assert await store.writes(begun.position) == [write]


async def test_a_big_value_comes_back(store: ControlStore) -> None:
    # As compressed ids of a filter of millions.
    big = random.Random(0).randbytes(12_000_000)
    begun = (await store.create({})).position
    write = await store.write(begun, "a", {"filter/big": big})
    assert (await store.writes(begun) or [])[0].changes["filter/big"] == big
    assert (await store.state() or State(begun, {})).values == {"filter/big": big}
    assert await store.writes(begun) == [write]


async def test_thousands_of_changes_are_one_write(store: ControlStore) -> None:
    begun = (await store.create({"filter/0": b"old", "kept": b"1"})).position
    changes: dict[str, bytes | None] = {f"filter/{number}": b"%d" % number for number in range(9000)} | {"kept": None}
    write = await store.write(begun, "a", changes)
    assert await store.state() == State(write.position, {key: value for key, value in changes.items() if value is not None})
    # A log that can't hold it says so.
    assert await store.writes(begun) in (None, [write])
    after = await store.write(write.position, "a", {"kept": b"2"})
    assert await store.writes(write.position) == [after]


async def test_a_trimmed_log_tells_nothing_of_what_is_behind_it(make_store: StoreFactory) -> None:
    store = make_store(log_writes=10)
    positions = [(await store.create({})).position]
    for number in range(15):
        positions.append((await store.write(positions[-1], "a", {"key": b"%d" % number})).position)
    for number, position in enumerate(positions):
        told = await store.writes(position)
        # The log holds the last ten, and tells of the position of the first of them.
        assert (told is None) == (number < 6), number
        assert told is None or [write.position for write in told] == positions[number + 1 :]
        assert told is None or [write.changes["key"] for write in told] == [b"%d" % after for after in range(number, 15)]


async def test_a_log_is_trimmed_by_its_size_as_far_as_to_its_newest_write(make_store: StoreFactory) -> None:
    store = make_store(log_bytes=10_000)
    positions = [(await store.create({})).position]
    for size, told_of in [(4_000, 2), (4_000, 3), (4_000, 2), (30_000, 1), (1, 1), (1, 2), (4_000, 3)]:
        positions.append((await store.write(positions[-1], "a", {"key": bytes(size)})).position)
        told = [position for position in positions if await store.writes(position) is not None]
        assert told == positions[-told_of:]


@pytest.mark.parametrize("seed", range(2))
async def test_of_random_writers_at_once_every_write_counts_once_and_in_one_order(make_store: StoreFactory, seed: int) -> None:
    """Each adds to a register and keeps a key of its own; who loses the race reads and tries again."""
    rng = random.Random(seed)
    begun = await make_store().create({"sum": b"0"})
    acknowledged: list[tuple[Position, int]] = []

    async def writer(number: int) -> None:
        store = make_store()
        for added in [rng.randrange(100) for _ in range(12)]:
            while True:
                state = await store.state()
                assert state is not None
                changes = {"sum": b"%d" % (int(state.values["sum"]) + added), f"own/{number}": b"%d" % added if added % 3 else None}
                await asyncio.sleep(rng.random() * 0.003)
                try:
                    write = await store.write(state.position, f"{number}", changes)
                except ControlConflict:
                    continue
                acknowledged.append((write.position, added))
                break

    await asyncio.gather(*(writer(number) for number in range(4)))
    store = make_store()
    log, state = await store.writes(begun.position), await store.state()
    assert log is not None
    assert state is not None
    assert sorted(acknowledged, key=lambda each: each[0].revision) == [(write.position, _added(log, i)) for i, write in enumerate(log)]
    replayed = dict(begun.values)
    for write in log:
        for key, value in write.changes.items():
            replayed |= {} if value is None else {key: value}
            if value is None:
                replayed.pop(key, None)
    assert State(log[-1].position, replayed) == state
    assert int(state.values["sum"]) == sum(added for _, added in acknowledged)


def _added(log, index):
    before = int(log[index - 1].changes["sum"]) if index else 0
    return int(log[index].changes["sum"]) - before


async def test_who_waits_is_told_of_a_write_by_another(make_store: StoreFactory) -> None:
    waiting, writing = make_store(), make_store()
    position = (await writing.create({})).position
    for _ in range(3):
        told = asyncio.create_task(waiting.wait(position, 30))
        await asyncio.sleep(0.02)
        begun = time.monotonic()
        position = (await writing.write(position, "a", {})).position
        await told
        assert time.monotonic() - begun < 10


async def test_nobody_waits_for_what_is_there(store: ControlStore) -> None:
    begun = (await store.create({})).position
    last = (await store.write(begun, "a", {})).position
    async with asyncio.timeout(20):
        await store.wait(begun, 60)
        await store.wait(None, 60)
        await store.wait(replace(last, write_id="lost"), 60)
        await store.wait(replace(last, generation="another"), 60)
        await store.wait(replace(last, revision=9, write_id="lost"), 60)


async def test_a_wait_ends_with_its_time(store: ControlStore) -> None:
    begun = time.monotonic()
    await store.wait(None, 0.1)
    await store.wait((await store.create({})).position, 0.1)
    assert time.monotonic() - begun >= 0.2


async def test_who_waits_at_an_empty_store_is_told_when_it_is_filled(make_store: StoreFactory) -> None:
    told = asyncio.create_task(make_store().wait(None, 30))
    await asyncio.sleep(0.02)
    await make_store().create({})
    async with asyncio.timeout(20):
        await told


async def test_replicas_live_until_they_withdraw(make_store: StoreFactory) -> None:
    one, two = make_store(), make_store()
    other = replace(REPLICA, name="b", position=Position("g", 3, "w"), ready=True, problem=None, version="films")
    await two.announce(other)
    await one.announce(REPLICA)
    assert await one.replicas() == await two.replicas() == [REPLICA, other]
    later = replace(REPLICA, ready=True, problem=None)
    await one.announce(later)
    assert await two.replicas() == [later, other]
    await one.withdraw("a")
    await one.withdraw("nobody")
    assert await two.replicas() == [other]


async def test_a_replica_that_is_silent_is_forgotten(make_store: StoreFactory) -> None:
    store = make_store(announced_seconds=0.3)
    await store.announce(REPLICA)
    await store.announce(replace(REPLICA, name="b"))
    deadline = time.monotonic() + 20
    while await store.replicas() != [replace(REPLICA, name="b")]:
        await store.announce(replace(REPLICA, name="b"))
        await asyncio.sleep(0.05)
        assert time.monotonic() < deadline


async def test_announcements_move_no_position_and_outlive_a_restored_state(store: ControlStore) -> None:
    begun = (await store.create({})).position
    await store.announce(REPLICA)
    assert await store.position() == begun
    await store.replace({}, 0)
    assert await store.replicas() == [REPLICA]


SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "control.db",
        "memory://somewhere",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:////proc/nowhere/control.db",
        "mysql://localhost",
        "redis://",
        f"redis://user:{SECRET}#9@localhost",
        f"redis+cluster://:{SECRET}@localhost?wait_replicas=1",
    ],
)
def test_an_unusable_url_is_refused_in_one_sentence_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"^[A-Z][^\n]*\.$") as refusal:
        open_control_store(url)
    assert SECRET not in str(refusal.value)
