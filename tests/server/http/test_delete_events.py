"""Single events are deleted by what they are, and nothing else is."""

import pytest

from server.histories import Event
from server.messages import ForgetUser
from server.try_again import HistoryUnavailable
from tests.server.http.test_app import Bench
from tests.server.server_process import assert_problem

EVENTS = [Event("item-1", 10.0, "a/b"), Event("item-2", 20.0, "e2"), Event("item-2", 30.0), Event("item-3", 30.0, "ä &")]


async def stored(user: str = "ann") -> Bench:
    bench = Bench()
    await bench.histories.append(user, EVENTS)
    return bench


@pytest.mark.parametrize(
    ("query", "deleted"),
    [
        ("event_id=e2", [1]),
        ("event_id=a%2Fb", [0]),
        ("event_id=%C3%A4%20%26", [3]),
        ("item_id=item-2", [1, 2]),
        ("item_id=item-2&timestamp=30", [2]),
        ("item_id=item-3&event_id=%C3%A4%20%26&timestamp=30.0", [3]),
    ],
)
@pytest.mark.parametrize("user", ["ann", "ann/events"])
async def test_the_events_that_are_named_are_deleted(query: str, deleted: list[int], user: str):
    bench = await stored(user)
    response = await bench.client.delete(f"/v1/users/{user.replace('/', '%2F')}/events?{query}")
    assert (response.status_code, response.content) == (204, b"")
    left = [event for place, event in enumerate(EVENTS) if place not in deleted]
    assert await bench.histories.read(user) == left
    # What is computed of the user must not outlive what it was computed from.
    assert bench.engine.told == [ForgetUser(user)]
    assert await bench.histories.append(user, [EVENTS[place] for place in deleted if EVENTS[place].event_id]) == 0


@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        ("?event_id=e3", 404, "User 'ann' has no such event."),
        ("?event_id=e2&item_id=item-1", 404, "User 'ann' has no such event."),
        ("", 422, "Name the events to delete: give their event_id, or their item_id, and their timestamp if need be."),
        ("?timestamp=30", 422, "Name the events to delete: give their event_id, or their item_id, and their timestamp if need be."),
        ("?item_id=item-2&timestamp=inf", 422, "timestamp must be a finite number, got inf."),
        ("?event_id=e2&event_id=a%2Fb", 422, "The query parameter 'event_id' is given more than once: a request takes one value of it."),
        ("?id=e2", 422, "There is no query parameter 'id'; possible here: event_id, item_id, timestamp."),
    ],
)
async def test_what_names_no_event_deletes_none(query: str, status: int, sentence: str):
    bench = await stored()
    assert_problem(await bench.client.delete(f"/v1/users/ann/events{query}"), status, sentence)
    assert await bench.histories.read("ann") == EVENTS


async def test_a_user_whose_id_ends_like_the_path_is_forgotten_as_a_whole():
    bench = await stored("ann/events")
    assert (await bench.client.delete("/v1/users/ann%2Fevents")).status_code == 204
    assert await bench.histories.read("ann/events") == []


@pytest.mark.parametrize(("path", "method"), [("", "delete"), ("/profile", "delete_profile"), ("/events?event_id=e2", "delete_events")])
async def test_a_deletion_that_the_store_does_not_acknowledge_leaves_nothing_computed(
    path: str, method: str, monkeypatch: pytest.MonkeyPatch
):
    """It may have been done: of two replicas of Redis that must have it, say, one has."""
    bench = await stored()

    async def fail(*_: object) -> None:
        raise HistoryUnavailable("Redis has stored a write on 1 of the 2 replicas that must have it.")

    monkeypatch.setattr(bench.histories, method, fail)
    assert (await bench.client.delete(f"/v1/users/ann{path}")).status_code == 503
    assert bench.engine.told == [ForgetUser("ann")]
