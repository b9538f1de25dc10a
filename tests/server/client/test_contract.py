"""The contract of the HTTP API, through both clients, on a real server: answers are those of the raw API, errors are its problems."""

import time
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from drafting.catalog.catalog import Catalog
from server.client import Conflict, NotFound, Overloaded, ProblemError, Refused, TimedOut
from server.client.histories import Appended
from server.schemas.given import GivenEvent
from server.schemas.recommendations import RecommendationRequest
from server.schemas.users import EventBody
from tests.server.client.faces import FACES, Face
from tests.server.server_process import ServerProcess

HISTORY = ["item-3", "item-14", "item-15"]


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Face]:
    with Face(request.param, server.url) as face:
        yield face


def user_of(face: Face, name: str) -> str:
    """A user that the other face does not meet; the id needs every care that an id can need."""
    return f"{name}/{face.kind} ü?#%2F"


def raw(server: ServerProcess, path: str) -> Any:
    return server.client.get(path).raise_for_status().json()


def told(answer: Any) -> Any:
    return answer.model_dump(mode="json", exclude_unset=True)


def test_lists_are_those_of_the_raw_api(face: Face, server: ServerProcess, catalog: Catalog):
    body: dict[str, Any] = {"history": HISTORY, "k": 5, "exclude": ["item-7"], "exclude_history": True}
    expected = server.recommend(**body).json()
    answer = face.call("recommend", **body)
    assert [(item.item_id, item.rank) for item in answer.items] == [(item["item_id"], item["rank"]) for item in expected["items"]]
    assert answer.catalog_version == catalog.version
    assert told(answer).keys() == expected.keys()
    event = GivenEvent(item_id="item-3", kind="watch", value=2.5)
    typed = face.call("recommend", history=[event, "item-14", {"item_id": "item-15"}], k=5, exclude=["item-7"], exclude_history=True)
    assert [item.item_id for item in typed.items] == [item["item_id"] for item in expected["items"]]


def test_a_list_is_explained(face: Face):
    answer = face.call("explain", history=HISTORY, k=3, others=4, deadline=20)
    last = answer.explanation.levels[-1]
    assert [(item.item_id, node.log_prob) for node in last.nodes[:3] for item in node.items] == [
        (item.item_id, item.score) for item in answer.items
    ]
    assert len(last.nodes) == 3 + 4


def test_scores_are_those_of_the_raw_api(face: Face, server: ServerProcess):
    body = {"items": ["item-7", "item-1", "item-7"], "history": HISTORY}
    expected = server.client.post("/v1/scores", json=body).json()
    answer = face.call("score", body["items"], history=HISTORY, deadline=20)
    assert told(answer)["items"] == expected["items"]
    assert told(answer).keys() == expected.keys()


def test_a_batch_has_lists_and_problems_in_order(face: Face):
    entries = [
        {"history": HISTORY, "k": 2},
        {"user_id": "nobody"},
        RecommendationRequest(history=HISTORY, k=3),
    ]
    answer = face.call("recommend_many", entries, deadline=20)
    assert [entry.status for entry in answer.results] == [200, 404, 200]
    assert (answer.succeeded, answer.failed) == (2, 1)
    lists = [entry.recommendation for entry in answer.results if entry.recommendation]
    assert [len({item.rank for item in each.items}) for each in lists] == [2, 3]
    assert answer.results[1].problem.type == "urn:atspeed:unknown-user"


def test_what_is_stored_of_a_user(face: Face):
    user = user_of(face, "stored")
    events: list[Any] = [
        {"item_id": "item-1", "timestamp": 100, "event_id": "a", "kind": "watch", "value": 3, "attributes": {"device": "tv"}},
        EventBody(item_id="item-2", timestamp=200.5),
    ]
    assert told(face.call("append_events", user, events)) == {"user_id": user, "received": 2, "stored": 2}
    assert face.call("append_events", user, events[:1]).stored == 0
    stored = face.call("history", user)
    assert [told(event) for event in stored.events] == [
        events[0] | {"title": "Title 1"},
        {"item_id": "item-2", "timestamp": 200.5, "title": "Title 2"},
    ]
    assert [event.item_id for event in face.call("history", user, limit=1).events] == ["item-2"]
    assert face.call("recommend", user_id=user, k=1, deadline=20).items
    face.call("delete_events", user, item_id="item-2", timestamp=200.5)
    assert [event.event_id for event in face.call("history", user).events] == ["a"]
    face.call("put_profile", user, {"country": "DE"})
    assert face.call("profile", user).profile == {"country": "DE"}
    face.call("forget_profile", user)
    with pytest.raises(NotFound, match="No profile is stored"):
        face.call("profile", user)
    face.call("forget_user", user)
    with pytest.raises(NotFound) as unknown:
        face.call("forget_history", user)
    problem = unknown.value
    assert (problem.status, problem.type, problem.title) == (404, "urn:atspeed:unknown-user", "Unknown user")
    assert str(problem) == problem.detail == f"There is no user {user!r}: no events are stored for that id."
    assert problem.request_id


@pytest.mark.parametrize("user", [".", "..", "a/..", "ends/history"])
def test_a_user_id_of_dots_and_slashes_is_nobody_else(face: Face, user: str):
    face.call("append_events", user, [{"item_id": "item-1", "event_id": "a"}])
    assert face.call("history", user).user_id == user
    face.call("forget_user", user)
    with pytest.raises(NotFound):
        face.call("history", user)


def test_histories_of_many_users_from_an_iterator(face: Face):
    users = [user_of(face, f"many-{number}") for number in range(5)]
    histories = {user: [{"item_id": f"item-{number}", "timestamp": number} for number in range(30)] for user in users[1:]}
    # More than one request takes.
    histories[users[0]] = [{"item_id": f"item-{number % 200}", "timestamp": number} for number in range(1002)]
    seen: list[Appended] = []
    done = face.call("append_histories", iter(histories.items()), at_once=3, on_progress=seen.append)
    assert done == Appended(users=5, events=1122, stored=1122) == seen[-1]
    assert [each.users for each in seen] == sorted(each.users for each in seen)
    assert face.call("append_histories", histories.items()) == Appended(users=5, events=1122, stored=0)
    newest = face.call("history", users[0], limit=3).events
    assert [event.timestamp for event in newest] == [999, 1000, 1001]
    without_times = face.call("append_histories", [(users[1], ["item-1", "item-1"])])
    assert without_times == Appended(users=1, events=2, stored=2)


def test_events_that_are_gone_when_the_next_user_is_taken_are_sent(face: Face):
    """As those of `groupby`; a user of several calls, during which the other workers take theirs."""
    users = [user_of(face, f"grouped-{number}") for number in range(6)]
    rows = ((user, {"item_id": f"item-{number % 200}", "timestamp": number}) for user in users for number in range(1100))
    grouped = ((user, (event for _, event in group)) for user, group in groupby(rows, key=itemgetter(0)))
    assert face.call("append_histories", grouped, at_once=3) == Appended(users=6, events=6600, stored=6600)
    assert [face.call("history", user, limit=1).events[0].timestamp for user in users] == [1099] * 6


def test_a_load_ends_with_the_first_failure(face: Face):
    users = [user_of(face, f"failing-{number}") for number in range(200)]
    with pytest.raises(Refused, match="has no item 'gone'"):
        face.call("append_histories", ((user, ["gone"]) for user in users), at_once=2)
    with pytest.raises(NotFound):
        face.call("history", users[-1])


def test_the_catalog_and_its_items(face: Face, server: ServerProcess, catalog: Catalog):
    assert told(face.call("catalog")) == raw(server, "/v1/catalog")
    assert told(face.call("items", limit=2, offset=3)) == raw(server, "/v1/catalog/items?limit=2&offset=3")
    assert len(face.call("items").items) == 100
    assert told(face.call("item", "item-7")) == raw(server, "/v1/catalog/items/item-7")
    assert told(face.call("items_like", "item-7", limit=3)) == raw(server, "/v1/catalog/like/item-7?limit=3")
    with pytest.raises(NotFound, match=r"no item '\.\./x'"):
        face.call("item", "../x")


def test_a_filter_is_put_used_and_forgotten_under_any_name(face: Face):
    name = f"few & {face.kind} a?b#…"
    assert told(face.call("put_filter", name, items=["item-1", "item-2"])) == {"name": name, "items": 2}
    assert [line.item_id for line in face.call("filter_sample", name, limit=2).sample] == ["item-1", "item-2"]
    answer = face.call("recommend", history=HISTORY, k=2, filter=name, deadline=20)
    assert {item.item_id for item in answer.items} <= {"item-1", "item-2"}
    assert name in [each.name for each in face.call("filters").filters]
    with pytest.raises(Refused) as refused:
        face.call("put_filter", name, expression="country =")
    assert refused.value.type == "urn:atspeed:filter-expression"
    face.call("forget_filter", name)
    with pytest.raises(NotFound):
        face.call("filter", name)


def test_versions_of_the_catalog_and_new_items(face: Face, catalog: Catalog):
    premiere = {"item_id": "premiere", "identifier": catalog.identifier(0), "title": "Premiere"}
    added = face.call("add_items", [premiere], on_collision="shared", by="a test")
    try:
        assert (added.items[0].item_id, added.by) == ("premiere", "a test")
        assert face.call("item", "premiere").title == "Premiere"
        assert face.call("roll_back").by == "rollback"
        assert face.call("activate", added.version, by="another").version == added.version
        assert face.call("recommend", history=HISTORY, k=1, deadline=20).catalog_version == added.version
    finally:
        with pytest.raises(Conflict):
            face.call("roll_back", by="a test", served=catalog.version)
        assert face.call("roll_back", by="a test", served=added.version).version == catalog.version
    assert face.call("difference", added.version, base=catalog.version, limit=0).added.count == 1
    assert [entry.by for entry in face.call("catalogs").history][-4:] == ["a test", "rollback", "another", "a test"]
    face.call("forget_catalog", added.version)
    assert added.version not in face.call("catalogs").versions
    with pytest.raises(NotFound):
        face.call("forget_catalog", added.version)


def test_a_catalog_that_is_refused(face: Face, catalog: Catalog, tmp_path: Path):
    file = tmp_path / "other.jsonl"
    file.write_bytes(b"x" * 1_000_000)
    # The server answers before it has read all of it.
    with pytest.raises(Conflict) as taken:
        face.call("upload_catalog", catalog.version, file)
    assert taken.value.type == "urn:atspeed:version-exists"
    with pytest.raises(Refused, match="There is no file 'gone'"):
        face.call("put_catalog", "gone", "gone")


def test_the_state_of_the_server(face: Face, server: ServerProcess):
    assert face.call("health").status == "alive"
    face.call("wait_until_ready")
    assert face.call("ready").engine == "ready"
    assert told(face.call("version")) == raw(server, "/version")
    assert "atspeed_engine_up 1.0" in face.call("metrics")


def test_a_deadline_holds_while_the_engine_does_nothing(face: Face, server: ServerProcess):
    with server.stopped_engine(), pytest.raises((TimedOut, Overloaded)):
        face.call("recommend", history=HISTORY, k=1, deadline=0.3)


def test_a_refused_request_says_what_is_wrong(face: Face):
    with pytest.raises(ProblemError) as refused:
        face.call("recommend", history=HISTORY, k=0)
    assert (refused.value.status, refused.value.detail) == (422, "k must be greater than or equal to 1, got 0.")
    with pytest.raises(Refused, match="There is no field 'kk'"):
        face.call("recommend", history=HISTORY, kk=1)


def test_the_state_of_replicas_is_backed_up_and_restored(face: Face, server: ServerProcess, tmp_path: Path):
    told = face.call("control")
    assert told.store == "ok"
    (own,) = told.replicas
    assert (own.name, own.ready, own.problem, own.revision, own.generation) == (told.replica, True, None, told.revision, told.generation)
    file = tmp_path / "control.backup"
    file.write_bytes(face.call("back_up_control"))
    sent: list[tuple[int, int]] = []
    restored = face.call("restore_control", file, on_bytes=lambda *bytes: sent.append(bytes))
    assert sent[-1] == (file.stat().st_size,) * 2
    assert restored.revision > told.revision
    ends = time.monotonic() + 30
    while (now := face.call("control")).replicas[0].generation != restored.generation:
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert (now.revision, now.generation) == (restored.revision, restored.generation)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Refused, match="damaged or cut off: nothing was restored"):
        face.call("restore_control", file)
    assert face.call("control").generation == restored.generation
