"""What every history store promises, asked of each of them in the same words."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest
from redis.asyncio import Redis

from server.histories import Event, EventChoice, Retention, StoredUser, open_history_store

ODD_TEXTS = [
    "",
    " ",
    "}",
    "{",
    "}{user}",
    "a:b/c?d#e%20",
    "naïve 用户 🎬",
    'quo"te\\',
    "line\nfeed\r\n",
    "nul\x00byte",
    "null",
    "0",
    "x" * 5000,
]


def items(events):
    return [event.item_id for event in events]


async def test_history_is_ordered_by_time_however_it_arrives(store):
    assert await store.append("ann", [Event("c", 3.0), Event("a", 1.0)]) == 2
    assert await store.append("ann", [Event("b", 2.0)]) == 1
    assert await store.read("ann") == [Event("a", 1.0), Event("b", 2.0), Event("c", 3.0)]


async def test_ties_keep_the_order_of_arrival(store):
    await store.append("ann", [Event("z", 1.0), Event("y", 1.0)])
    await store.append("ann", [Event("x", 1.0, "id"), Event("w", 1.0)])
    assert items(await store.read("ann")) == ["z", "y", "x", "w"]


async def test_the_same_item_twice_is_two_events(store):
    assert await store.append("ann", [Event("a", 1.0), Event("a", 1.0)]) == 2
    assert items(await store.read("ann")) == ["a", "a"]


async def test_an_event_id_is_stored_once_per_user(store):
    first = Event("a", 1.0, "e1")
    assert await store.append("ann", [first, first, Event("b", 2.0, "e2")]) == 2
    assert await store.append("ann", [first, Event("other", 9.0, "e1"), Event("c", 3.0, "e3")]) == 1
    assert await store.read("ann") == [first, Event("b", 2.0, "e2"), Event("c", 3.0, "e3")]
    assert await store.append("bob", [first]) == 1


async def test_an_empty_event_id_is_an_id_and_none_is_not(store):
    assert await store.append("ann", [Event("a", 1.0, ""), Event("b", 2.0, ""), Event("c", 3.0), Event("d", 4.0)]) == 3
    assert items(await store.read("ann")) == ["a", "c", "d"]


async def test_of_events_that_arrive_together_the_oldest_fall_off(store):
    assert await store.append("ann", [Event(str(t), float(t)) for t in (7, 3, 5, 1, 9, 8, 2)]) == 5
    assert items(await store.read("ann")) == ["3", "5", "7", "8", "9"]


async def test_the_first_to_arrive_fall_off_a_full_history(store):
    """Whatever the timestamps say: else a full history would take nothing more from a clock that went back."""
    for at in (7, 3, 5, 1, 9):
        await store.append("ann", [Event(str(at), float(at))])
    assert await store.append("ann", [Event("6", 6.0), Event("0", 0.0)]) == 2
    assert items(await store.read("ann")) == ["0", "1", "5", "6", "9"]
    assert items(await store.read("ann", 2)) == ["6", "9"]


async def test_a_full_history_of_the_future_takes_every_later_event(store):
    await store.append("ann", [Event(f"future {i}", 9e9 + i, f"future {i}") for i in range(5)])
    for number in range(7):
        assert await store.append("ann", [Event(str(number), 100.0, str(number))]) == 1
    assert items(await store.read("ann")) == ["2", "3", "4", "5", "6"]


async def test_a_retry_of_what_fell_off_changes_nothing(store):
    sent = [Event(str(i), 1.0, f"e{i}") for i in range(8)]
    assert await store.append("ann", sent) == 5
    shown = await store.read("ann")
    assert items(shown) == ["3", "4", "5", "6", "7"]
    assert await store.append("ann", sent) == 0
    assert await store.read("ann") == shown
    later = [Event("later", 2.0 + i, f"later{i}") for i in range(5)]
    assert await store.append("ann", later) == 5
    assert await store.append("ann", sent[3:] + later) == 0
    assert await store.read("ann") == later


async def test_what_is_remembered_is_bounded(store):
    """The memory that makes retries harmless must not become a history without an end: an id is let go beyond twice the length."""
    await store.append("ann", [Event(str(i), 1.0, f"e{i}") for i in range(11)])
    assert await store.append("ann", [Event("1", 1.0, "e1")]) == 0
    assert await store.append("ann", [Event("0", 1.0, "e0")]) == 1
    for number in range(50):
        await store.append("ann", [Event("", float(number), f"later {number}")])
        assert await store.append("ann", [Event("", 1.0, f"later {number - kept}") for kept in range(min(number + 1, 10))]) == 0


async def test_read_returns_the_newest_up_to_the_limit(store):
    await store.append("ann", [Event(str(t), float(t)) for t in range(4)])
    assert items(await store.read("ann", 2)) == ["2", "3"]
    assert items(await store.read("ann", 99)) == ["0", "1", "2", "3"]
    assert await store.read("ann", 0) == []
    with pytest.raises(ValueError, match="limit"):
        await store.read("ann", -1)


RICH = [
    Event("a", 1.0, "e1", "watch", 0.1 + 0.2, {"device": "tv", "minutes": 90, "share": 0.5, "done": True, "": "}{\x00🎬"}),
    Event("b", 2.0, None, "buy"),
    Event("c", 3.0, None, None, -5e-324),
    Event("d", 4.0, "e4", "", 0.0, {"largest": 2**53 - 1, "whole": 3.0, "no": False}),
]
PROFILE = {
    "age": 34,
    "country": "DE",
    "vip": True,
    "share": 0.25,
    "whole": 3.0,
    "genres": ["drama", "}{\x00🎬", ""],
    "": [1, 2.0, False],
    "none": [],
}


def told(events):
    """With the types of all values, which `==` does not tell apart."""
    return [(*map(repr, (event.kind, event.value)), repr(dict(event.attributes))) for event in events]


async def test_events_come_back_with_kind_value_and_attributes(store):
    assert await store.append("ann", [*RICH[2:], *RICH[:2]]) == 4
    shown = await store.read("ann")
    assert shown == RICH
    assert told(shown) == told(RICH)
    # Under a known id nothing changes, and where events fall off the others keep theirs.
    assert await store.append("ann", [Event("a", 1.0, "e1", "buy"), Event("e", 5.0), Event("f", 6.0, None, "rate", 4.5)]) == 2
    assert await store.read("ann") == [*RICH[1:], Event("e", 5.0), Event("f", 6.0, None, "rate", 4.5)]


async def test_a_profile_is_read_with_the_history_and_replaced_as_a_whole(store):
    await store.put_profile("ann", PROFILE)
    assert await store.read_user("ann") == StoredUser([], PROFILE)
    await store.append("ann", RICH)
    found = await store.read_user("ann", 2)
    assert found == StoredUser(RICH[2:], PROFILE)
    assert repr(found.profile) == repr(PROFILE)
    assert await store.read("ann") == RICH
    await store.put_profile("ann", {"age": 35})
    assert await store.read_user("ann", 0) == StoredUser([], {"age": 35})
    await store.put_profile("ann", {})
    assert await store.read_user("ann", 1) == StoredUser(RICH[3:], {})
    assert await store.append("ann", RICH[:1]) == 0


async def test_a_profile_is_deleted_alone_and_with_its_user(store):
    assert await store.delete_profile("ann") is False
    await store.append("ann", RICH)
    assert await store.delete_profile("ann") is False
    for user in ("ann", "bob", "carl"):
        await store.put_profile(user, PROFILE)
    assert await store.delete_profile("ann") is True
    assert await store.read_user("ann") == StoredUser(RICH)
    assert await store.append("ann", RICH[:1]) == 0
    await store.put_profile("ann", PROFILE)
    assert await store.delete("ann") is True
    assert await store.delete("bob") is True
    assert await store.read_user("ann") == await store.read_user("bob") == StoredUser([])
    assert await store.read_user("carl") == StoredUser([], PROFILE)
    assert await store.delete_profile("carl") is True
    assert await store.delete("carl") is False


async def test_what_was_put_does_not_change_with_its_giver(store):
    given = {"genres": ["drama"]}
    await store.put_profile("ann", given)
    given["genres"].append("war")
    given["age"] = 3
    assert await store.read_user("ann") == StoredUser([], {"genres": ["drama"]})


async def test_profiles_of_users_whose_names_are_alike_stay_apart(store):
    users = ["a", "A", "a ", "a}", "a}:profile", "{a}", "", "x" * 5000]
    for user in users:
        await store.put_profile(user, {"name": user})
    for user in users:
        assert (await store.read_user(user)).profile == {"name": user}


Passing = Callable[[float], Awaitable[None]]


@pytest.fixture
def passing(scheme: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Passing:
    """Has time pass for the stores of a scheme: their clock is set, and what Redis keeps for a time has so much less of it left."""
    since = 0.0
    clock = SimpleNamespace(time=lambda: time.time() + since, monotonic=lambda: time.monotonic() + since)
    monkeypatch.setattr("server.histories.memory.time", clock)
    monkeypatch.setattr("server.histories.sqlite.time", clock)

    async def passes(seconds: float) -> None:
        nonlocal since
        since += seconds
        if scheme != "redis":
            return
        async with Redis(port=request.getfixturevalue("redis_server").port) as admin:
            async for key in admin.scan_iter("{test-*"):
                if (left := await admin.pttl(key)) > 0:
                    await admin.pexpire(key, max(0, left - round(1000 * seconds)))

    return passes


# Sentinels and Clusters are given the same commands as one Redis.
CLOCKS = pytest.mark.parametrize("scheme", ["memory", "sqlite", "redis"])


@CLOCKS
async def test_events_and_profile_end_together_their_time_after_the_last_write(make_store, passing: Passing):
    store = make_store(ttl_seconds=700)
    for user in ("events", "profile", "forgotten"):
        await store.append(user, [Event("a", 1.0)])
        await store.put_profile(user, PROFILE)
    await passing(450)
    await store.append("events", [Event("b", 2.0)])
    await store.put_profile("profile", {})
    # What is deleted gives the rest no more time.
    await store.delete_profile("forgotten")
    await passing(400)
    assert await store.read_user("events") == StoredUser([Event("a", 1.0), Event("b", 2.0)], PROFILE)
    assert await store.read_user("profile") == StoredUser([Event("a", 1.0)], {})
    assert await store.read_user("forgotten") == StoredUser([])
    await passing(500)
    assert await store.read_user("events") == await store.read_user("profile") == StoredUser([])
    assert await store.delete_profile("events") is False
    assert await store.delete("profile") is False
    await store.close()


async def test_lives_are_limited_of_users_who_would_be_kept_longer(make_store, scheme):
    users = [*(f"u{number}}}:*[{number}" for number in range(120)), ""]
    store = make_store(f"lives-{scheme}")
    await store.append_many({user: [Event("a", 1.0)] for user in users})
    await store.put_profile("profile alone", PROFILE)
    assert await store.limit_lives([].append, [].append) == 0
    if scheme != "memory":
        await store.close()
        store = make_store(f"lives-{scheme}", ttl_seconds=3000)
    # Who has been written to since is not kept longer.
    await store.append(users[5], [Event("b", 2.0)])
    found: list[int] = []
    assert await store.limit_lives(found.append, [].append) == sum(found) == (0 if scheme == "memory" else len(users))
    assert await store.limit_lives(found.append, [].append) == 0
    assert await store.read_user("profile alone") == StoredUser([], PROFILE)
    assert [items(await store.read(user)) for user in users] == [["a", *("b" * (user == users[5]))] for user in users]
    await store.close()


@CLOCKS
async def test_a_life_that_is_limited_ends(make_store, passing: Passing, scheme):
    store = make_store(f"ending-{scheme}")
    await store.append("ann", [Event("a", 1.0)])
    await store.put_profile("ann", PROFILE)
    if scheme != "memory":
        await store.close()
        store = make_store(f"ending-{scheme}", ttl_seconds=3000)
        assert await store.limit_lives([].append, [].append) == 1
    await passing(2900)
    assert await store.read_user("ann") == StoredUser([Event("a", 1.0)], PROFILE)
    await passing(200)
    assert (await store.read_user("ann") == StoredUser([])) == (scheme != "memory")
    await store.close()


async def test_an_unknown_user_has_no_history(store):
    assert await store.read_user("nobody") == StoredUser([])
    assert await store.read("nobody") == []
    assert await store.delete("nobody") is False
    assert await store.append("nobody", []) == 0
    assert await store.delete("nobody") is False


async def test_delete_forgets_one_user_and_their_ids(store):
    for user in ("ann", "bob"):
        await store.append(user, [Event("a", 1.0, "e1")])
    assert await store.delete("ann") is True
    assert await store.read("ann") == []
    assert await store.delete("ann") is False
    assert items(await store.read("bob")) == ["a"]
    assert await store.append("ann", [Event("a", 1.0, "e1")]) == 1


@pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: repr(text[:12]))
async def test_ids_are_any_text(store, text):
    event = Event(text, 1.0, text)
    await store.append("plain", [Event("x", 1.0)])
    assert await store.append(text, [event, event]) == 1
    assert await store.append(text, [Event(str(i), 2.0) for i in range(4)]) == 4
    assert (await store.read(text))[0] == event
    assert await store.append(text, [Event("newest", 3.0)]) == 1
    assert await store.append(text, [event]) == 0
    assert event not in await store.read(text)
    assert items(await store.read("plain")) == ["x"]
    assert await store.delete(text) is True


async def test_users_whose_names_are_alike_stay_apart(store):
    users = ["a", "A", "a ", "a}", "a}:events", "a}:ids", "{a}", "ä", "a\u0308"]
    for user in users:
        assert await store.append(user, [Event(user, 1.0)]) == 1
    for user in users:
        assert items(await store.read(user)) == [user]


@pytest.mark.parametrize("timestamp", [0.0, -1.5, 0.1 + 0.2, 1_700_000_000.123456, 5e-324, -1.7976931348623157e308, 2.0**53 + 2, 1e-7])
async def test_timestamps_come_back_to_the_last_bit(store, timestamp):
    after = math.nextafter(timestamp, math.inf)
    await store.append("ann", [Event("after", after), Event("at", timestamp)])
    assert await store.read("ann") == [Event("at", timestamp), Event("after", after)]


async def test_append_many_is_append_for_each(store):
    histories = {f"user {u}": [Event(str(t), float(t), f"{t}") for t in range(3)] for u in range(120)}
    assert await store.append_many(histories | {"quiet": []}) == 360
    assert await store.append_many(histories) == 0
    assert items(await store.read("user 119")) == ["0", "1", "2"]
    assert await store.delete("quiet") is False


async def test_put_profiles_is_put_profile_for_each(store):
    await store.put_profile("user 3", {"age": 1})
    await store.append("user 4", [Event("a", 1.0)])
    await store.put_profiles({f"user {u}": {"age": u} for u in range(120)})
    for user in (0, 3, 4, 119):
        assert (await store.read_user(f"user {user}")).profile == {"age": user}
    assert items(await store.read("user 4")) == ["a"]
    await store.put_profiles({})


async def test_concurrent_appends_all_arrive(make_store):
    store = make_store(max_events=100)
    await asyncio.gather(*(store.append("ann", [Event(str(t), float(t)), Event("twice", 99.0, "once")]) for t in range(60)))
    shown = items(await store.read("ann"))
    assert shown == [*map(str, range(60)), "twice"]
    await store.close()


@CLOCKS
async def test_a_history_ends_its_time_after_the_last_append(make_store, passing: Passing):
    store = make_store(ttl_seconds=700)
    await store.append("bob", [Event("b", 1.0)])
    await store.append("ann", [Event("a", 1.0, "e1")])
    await passing(450)
    await store.append("bob", [Event("c", 2.0)])
    await passing(400)
    assert items(await store.read("bob")) == ["b", "c"]
    assert await store.read("ann") == []
    assert await store.delete("ann") is False
    assert await store.append("ann", [Event("new", 2.0, "e1")]) == 1
    assert items(await store.read("ann")) == ["new"]
    await store.close()


@pytest.mark.parametrize("timestamp", [math.nan, math.inf, -math.inf])
def test_an_event_without_a_place_in_time_is_refused(timestamp):
    with pytest.raises(ValueError, match="finite"):
        Event("a", timestamp)
    with pytest.raises(ValueError, match="finite"):
        Event("a", 1.0, value=timestamp)


@pytest.mark.parametrize(
    "numbers", [{"max_events": 0}, {"ttl_seconds": 0.0}, {"ttl_seconds": -1.0}, {"ttl_seconds": math.nan}, {"ttl_seconds": 1e300}]
)
def test_a_retention_that_keeps_nothing_is_refused(numbers):
    with pytest.raises(ValueError, match=next(iter(numbers))):
        Retention(**numbers)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan])
def test_a_timeout_without_time_is_refused(seconds):
    with pytest.raises(ValueError, match="timeout_seconds"):
        open_history_store("memory://", timeout_seconds=seconds)


SECRET = "hunter2"
UNUSABLE = [
    "",
    "histories.db",
    "mysql://localhost",
    "memory://somewhere",
    "sqlite://",
    "sqlite:///",
    "sqlite://histories.db",
    "sqlite:///:memory:",
    "sqlite:////proc/nowhere/histories.db",
    "sqlite:////dev",
    "redis://",
    f"redis://:{SECRET}@",
    f"redis://user:{SECRET}#9@localhost",
    f"redis://:{SECRET}@localhost:port",
    f"redis://:{SECRET}@localhost:99999",
    f"redis://:{SECRET}@localhost/films",
    f"redis://:{SECRET}@localhost/0#1",
    f"redis://:{SECRET}@localhost?db=x",
    f"redis://:{SECRET}@localhost?socket_timeout=9",
    f"redis://:{SECRET}@localhost?ssl_cert_reqs=none",
    f"rediss://:{SECRET}@localhost?ssl_nonsense=1",
    f"rediss://:{SECRET}@localhost?ssl_cert_reqs=perhaps",
    f"redis://:{SECRET}@[::1",
    f"redis://user:12?{SECRET}@localhost",
]


@pytest.mark.parametrize("url", UNUSABLE)
def test_an_unusable_url_is_refused_in_one_sentence_without_its_password(url):
    with pytest.raises(ValueError, match=r"^[A-Z].*\.$") as refusal:
        open_history_store(url)
    assert SECRET not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("prefix", ["", "a{b", "}"])
def test_a_prefix_that_would_spoil_the_hash_tag_is_refused(prefix):
    with pytest.raises(ValueError, match="prefix"):
        open_history_store("redis://localhost", key_prefix=prefix)


async def test_a_sample_has_the_newest_events_of_all_users_or_of_so_many(store):
    """Users without events are none of them, and neither are those that were deleted."""
    assert await store.sample(10, 3) == []
    for number in range(120):
        await store.append(f"u{number}*[{number}", [Event(f"{number}-{t}", float(t)) for t in range(1 + number % 7)])
        await store.put_profile(f"profile {number}", {"age": number})
    await store.delete("u5*[5")
    stored = {tuple(items(await store.read(f"u{number}*[{number}", 3))) for number in range(120)} - {()}
    assert len(stored) == 119
    found = await store.sample(1000, 3)
    assert {tuple(items(events)) for events in found} == stored
    assert len(found) == 119
    some = await store.sample(60, 3)
    assert len({tuple(items(events)) for events in some}) == len(some)
    assert 0 < len(some) <= 60
    assert {tuple(items(events)) for events in some} <= stored


async def test_a_sample_has_no_user_whose_time_is_over(make_store):
    store = make_store(max_events=5, ttl_seconds=0.2)
    await store.append("ann", [Event("a", 1.0)])
    deadline = time.monotonic() + 20
    while await store.sample(10, 3):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await store.close()


async def test_single_events_are_deleted_and_no_late_retry_brings_them_back(store):
    events = [Event("a", 1.0, "e1"), Event("b", 2.0, "e2"), Event("a", 3.0), Event("a", 3.0, None, "buy"), Event("c", 4.0, "e4")]
    await store.append("ann", events)
    assert await store.delete_events("ann", EventChoice("e2")) == 1
    assert await store.delete_events("ann", EventChoice("e2")) == 0
    assert await store.delete_events("ann", EventChoice(item_id="a", timestamp=3.0)) == 2
    assert await store.delete_events("ann", EventChoice("e1", "b")) == 0
    assert await store.delete_events("bob", EventChoice("e1")) == 0
    assert await store.read("ann") == [events[0], events[4]]
    assert await store.append("ann", [events[1], Event("d", 5.0)]) == 1
    assert items(await store.read("ann")) == ["a", "c", "d"]
    await store.put_profile("ann", {"age": 3})
    assert await store.delete_events("ann", EventChoice()) == 3
    assert await store.read_user("ann") == StoredUser([], {"age": 3})
    assert await store.append("ann", [events[1]]) == 1
    await store.delete_profile("ann")
    assert await store.delete_events("ann", EventChoice(item_id="b")) == 1
    assert not await store.delete("ann")


async def test_of_equal_times_the_first_to_arrive_still_falls_off_when_others_were_deleted(store):
    await store.append("ann", [Event(name, 1.0) for name in "abcde"])
    await store.delete_events("ann", EventChoice(item_id="b"))
    await store.append("ann", [Event("z", 0.5), Event("y", 9.0)])
    assert items(await store.read("ann")) == ["z", "c", "d", "e", "y"]
