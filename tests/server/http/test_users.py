"""Stored histories over HTTP, on a real server with SQLite."""

import time

import pytest

from drafting.catalog.catalog import Catalog
from tests.server.server_process import ServerProcess, alike, assert_problem


def test_events_are_kept_once_each_and_in_order_and_can_be_recommended_from(server: ServerProcess):
    path = "/v1/users/anna/events"
    first = [{"item_id": "item-2", "timestamp": 20, "event_id": "b"}, {"item_id": "item-1", "timestamp": 10, "event_id": "a"}]
    assert server.client.post(path, json={"events": first}).json() == {"user_id": "anna", "received": 2, "stored": 2}
    assert server.client.post(path, json={"events": first}).json() == {"user_id": "anna", "received": 2, "stored": 0}
    assert server.client.post(path, json={"item_id": "item-3", "timestamp": 15}).json()["stored"] == 1
    history = server.client.get("/v1/users/anna/history").json()
    assert history == {
        "user_id": "anna",
        "events": [
            {"item_id": "item-1", "timestamp": 10, "event_id": "a", "title": "Title 1"},
            {"item_id": "item-3", "timestamp": 15, "title": "Title 3"},
            {"item_id": "item-2", "timestamp": 20, "event_id": "b", "title": "Title 2"},
        ],
    }
    assert [event["item_id"] for event in server.client.get("/v1/users/anna/history?limit=1").json()["events"]] == ["item-2"]
    stored = server.recommend(user_id="anna", k=5).json()
    inline = server.recommend(history=["item-1", "item-3", "item-2"], k=5).json()
    assert stored["items"] == alike(inline["items"])
    assert stored["timing_ms"]["history"] > 0


def test_exclude_history_reads_the_whole_stored_history(server: ServerProcess, catalog: Catalog):
    items = list(catalog.item_ids[:120])
    server.client.post("/v1/users/berta/events", json={"events": [{"item_id": item} for item in items]})
    answer = server.recommend(user_id="berta", k=20, beam_width=64, exclude_history=True).json()
    assert answer["items"]
    assert not {line["item_id"] for line in answer["items"]} & set(items)


def test_an_event_happens_now_if_it_does_not_say_when(server: ServerProcess):
    server.client.post("/v1/users/carl/events", json={"item_id": "item-1"})
    (event,) = server.client.get("/v1/users/carl/history").json()["events"]
    assert abs(event["timestamp"] - time.time()) < 10


def test_a_forgotten_user_is_unknown(server: ServerProcess):
    server.client.post("/v1/users/dora/events", json={"item_id": "item-1"})
    assert server.client.delete("/v1/users/dora").status_code == 204
    sentence = "There is no user 'dora': no events are stored for that id."
    assert_problem(server.client.get("/v1/users/dora/history"), 404, sentence)
    assert_problem(server.client.delete("/v1/users/dora"), 404, sentence)
    assert_problem(server.recommend(user_id="dora"), 404, sentence)


def test_any_text_names_a_user(server: ServerProcess):
    name = "änne@example.com 'x'; %00☃"
    path = f"/v1/users/{name.replace('%', '%25').replace(' ', '%20')}"
    assert server.client.post(f"{path}/events", json={"item_id": "item-4"}).json()["user_id"] == name
    assert server.recommend(user_id=name, k=1).status_code == 200


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"events": [{"item_id": "item-1"}, {"item_id": "item-9999"}]}, "The catalog has no item 'item-9999', which an event names."),
        ({"events": [{"timestamp": 5}]}, "The field 'events[0].item_id' is missing."),
        (
            {"item_id": "item-1", "timestamp": "noon"},
            "events[0].timestamp must be seconds since 1970, or a date and time of RFC 3339 such as 2026-11-28T22:15:00Z.",
        ),
        (
            {"item_id": "item-1", "timestamp": 1795400000123},
            "events[0].timestamp must be in seconds since 1970: 1795400000123 looks like milliseconds (2026-11-23T02:13:20Z), "
            "so divide it by 1,000.",
        ),
        ({"item_id": "item-1", "when": 5}, "There is no field 'events[0].when'."),
        ({}, "The field 'events' is missing."),
        ({"events": [7]}, "events[0] must be a JSON object."),
    ],
)
def test_events_that_are_wrong_get_one_sentence_and_nothing_is_stored(server: ServerProcess, body: object, sentence: str):
    assert_problem(server.client.post("/v1/users/emil/events", json=body), 422, sentence)
    assert server.client.get("/v1/users/emil/history").status_code == 404


def test_a_timestamp_that_is_no_number_gets_one_sentence(server: ServerProcess):
    content = b'{"item_id": "item-1", "timestamp": NaN}'
    response = server.client.post("/v1/users/emil/events", content=content, headers={"Content-Type": "application/json"})
    assert_problem(response, 422, "events[0].timestamp must be a finite number, got nan.")
