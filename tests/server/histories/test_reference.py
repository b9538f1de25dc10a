"""Any interleaving of operations, compared step by step with a model that is written to be read, not to be fast."""

import asyncio
from copy import copy
from dataclasses import asdict

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.histories import Event, EventChoice, StoredUser

MAX_EVENTS = 3

texts = st.text('ab0"\\}é🎬\x00\n', max_size=4)
# Few timestamps and few ids, so that ties, duplicates and late events are the rule.
timestamps = st.sampled_from([-1.5, 0.0, 1.0, 1.0000000000000002, 2.0, 1.7e9]) | st.floats(allow_nan=False, allow_infinity=False)
numbers = st.floats(allow_nan=False, allow_infinity=False)
scalars = texts | st.booleans() | st.integers(-(2**53), 2**53) | numbers
ids = st.none() | st.sampled_from(["", "1", "2", "3"]) | texts
events = st.builds(Event, texts, timestamps, ids, st.none() | texts, st.none() | numbers, st.dictionaries(texts, scalars, max_size=2))
profiles = st.dictionaries(texts, scalars | st.lists(scalars, max_size=3), max_size=3)
choices = st.builds(EventChoice, ids, st.none() | texts, st.none() | timestamps)
USERS = ["ann", "", "b}b"]
users = st.sampled_from(USERS)
operations = st.lists(
    st.tuples(st.just("append"), users, st.lists(events, max_size=9))
    | st.tuples(st.just("read"), users, st.none() | st.integers(0, 5))
    | st.tuples(st.just("read_user"), users, st.none() | st.integers(0, 5))
    | st.tuples(st.just("put_profile"), users, profiles)
    | st.tuples(st.just("delete_profile"), users)
    | st.tuples(st.just("delete_events"), users, choices)
    | st.tuples(st.just("delete"), users),
    max_size=12,
)


class Reference:
    """The contract of `server.histories.base` in its plainest form."""

    def __init__(self):
        # Ids and events in the order of their arrival.
        self.remembered = {}
        self.shown = {}
        self.profiles = {}

    def append(self, user, events):
        if not events:
            return 0
        remembered, shown = self.remembered.setdefault(user, []), self.shown.setdefault(user, [])
        shown_before = list(shown)
        for event in sorted(events, key=lambda event: event.timestamp):
            if event.event_id is None or event.event_id not in remembered:
                remembered.append(event.event_id)
                del remembered[: -2 * MAX_EVENTS]
                # The identity of an event tells repeats without an id apart.
                shown.append(copy(event))
        del shown[:-MAX_EVENTS]
        return sum(not any(event is other for other in shown_before) for event in shown)

    def read(self, user, limit):
        shown = sorted(self.shown.get(user, []), key=lambda event: event.timestamp)
        return shown if limit is None else shown[len(shown) - min(limit, len(shown)) :]

    def delete_events(self, user, chosen):
        wanted = {name: value for name, value in asdict(chosen).items() if value is not None}
        shown = self.shown.get(user, [])
        left = [event for event in shown if any(msgspec.structs.asdict(event)[name] != value for name, value in wanted.items())]
        if left:
            self.shown[user] = left
        else:
            self.shown.pop(user, None), self.remembered.pop(user, None)
        return len(shown) - len(left)

    def delete(self, user):
        profile = self.delete_profile(user)
        self.remembered.pop(user, None)
        return self.shown.pop(user, None) is not None or profile

    def read_user(self, user, limit):
        return StoredUser(self.read(user, limit), self.profiles.get(user))

    def put_profile(self, user, profile):
        self.profiles[user] = profile

    def delete_profile(self, user):
        return self.profiles.pop(user, None) is not None


# One store serves all examples, as opening one costs more than an example; each ends by deleting its users.
LIGHT = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture
def runner():
    with asyncio.Runner() as running:
        yield running


@pytest.fixture
def shared_store(make_store, runner):
    async def opened():
        return make_store(max_events=MAX_EVENTS)

    store = runner.run(opened())
    yield store
    runner.run(store.close())


@LIGHT
@given(steps=operations)
def test_every_store_answers_as_the_reference_does(shared_store, runner, steps):
    async def compare():
        reference = Reference()
        try:
            for name, user, *arguments in steps:
                answer = await getattr(shared_store, name)(user, *arguments)
                assert answer == getattr(reference, name)(user, *arguments)
            for user in USERS:
                assert await shared_store.read(user) == reference.read(user, None)
        finally:
            for user in USERS:
                await shared_store.delete(user)

    runner.run(compare())


@LIGHT
@given(data=st.data())
def test_a_retry_is_never_seen(shared_store, runner, data):
    """With ids on all events, and no more of them than are remembered, sending any of them again, in any grouping, changes nothing."""
    times = data.draw(st.lists(timestamps, min_size=1, max_size=2 * MAX_EVENTS))
    sent = [Event(f"item {i}", timestamp, f"id {i}") for i, timestamp in enumerate(times)]
    cut = data.draw(st.integers(0, len(sent)))
    retries = data.draw(st.lists(st.lists(st.sampled_from(sent), min_size=1), max_size=4))

    async def compare():
        try:
            await shared_store.append("ann", sent[:cut])
            await shared_store.append("ann", sent[cut:])
            shown = await shared_store.read("ann")
            for retry in retries:
                assert await shared_store.append("ann", retry) == 0
            assert await shared_store.read("ann") == shown
        finally:
            await shared_store.delete("ann")

    runner.run(compare())
