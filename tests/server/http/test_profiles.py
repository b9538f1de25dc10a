"""Profiles, and what requests bring of a user: stored and given back, bounded, and told to nobody else."""

import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import httpx
import msgspec
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import ValidationError

from drafting.alignment.data.fact_limits import MAX_FACTS_BYTES
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import prompt_of
from drafting.prompts.tails import ReadText
from drafting.prompts.tokenizer import PromptTokenizer
from server.engine.prompts import write_prompts
from server.http.app import build_app
from server.metrics.tracing import Tracing
from server.schemas.given import item_ids
from server.schemas.recommendations import RecommendationRequest
from server.schemas.users import EventsBody, ProfileBody
from server.services import Services
from tests.prompt_tokenizers import byte_level
from tests.server.http.test_app import CATALOG, Bench
from tests.server.server_process import assert_problem

PROFILE = {"country": "DE", "age": 34, "share": 0.5, "vip": True, "genres": ["drama", "🎬"], "none": []}
PATH = "/v1/users/anna/profile"


@pytest.fixture
def bench() -> Iterator[Bench]:
    return Bench()


async def test_a_profile_is_put_read_replaced_and_forgotten(bench: Bench):
    assert_problem(await bench.client.get(PATH), 404, "No profile is stored for user 'anna'.")
    assert_problem(await bench.client.delete(PATH), 404, "No profile is stored for user 'anna'.")
    put = await bench.client.put(PATH, json=PROFILE)
    assert (put.status_code, put.content) == (204, b"")
    assert (await bench.client.get(PATH)).json() == {"user_id": "anna", "profile": PROFILE}
    await bench.client.put(PATH, json={})
    assert (await bench.client.get(PATH)).json() == {"user_id": "anna", "profile": {}}
    assert (await bench.client.delete(PATH)).status_code == 204
    assert (await bench.client.get(PATH)).status_code == 404


async def test_a_profile_goes_with_its_user_and_the_history_stays_without_it(bench: Bench):
    for path in ("/v1/users/anna", "/v1/users/anna/history"):
        await bench.client.put(PATH, json=PROFILE)
        await bench.client.post("/v1/users/anna/events", json={"item_id": "item-1"})
        assert (await bench.client.delete(path)).status_code == 204
        assert (await bench.client.get(PATH)).status_code == (await bench.client.get("/v1/users/anna/history")).status_code == 404
        # A profile alone is a user, too.
        await bench.client.put(PATH, json=PROFILE)
        assert (await bench.client.delete(path)).status_code == 204
    await bench.client.put(PATH, json=PROFILE)
    await bench.client.post("/v1/users/anna/events", json={"item_id": "item-1"})
    await bench.client.delete(PATH)
    assert (await bench.client.get("/v1/users/anna/history")).status_code == 200


@pytest.mark.parametrize("user", ["a/b", "a/profile", "profile", "a/history", "a//b", "a\nb"])
async def test_users_with_slashes_have_profiles(bench: Bench, user: str):
    path = f"/v1/users/{quote(user, safe='')}"
    await bench.client.put(f"{path}/profile", json={"age": 1})
    assert (await bench.client.get(f"{path}/profile")).json() == {"user_id": user, "profile": {"age": 1}}
    assert (await bench.histories.read_user(user)).profile == {"age": 1}
    assert (await bench.client.delete(f"{path}/profile")).status_code == 204
    await bench.client.put(f"{path}/profile", json={"age": 1})
    assert (await bench.client.delete(path)).status_code == 204
    assert (await bench.histories.read_user(user)).profile is None


async def test_events_keep_their_kind_value_and_attributes(bench: Bench):
    rich = {"item_id": "item-1", "timestamp": 5.0, "kind": "watch", "value": 0.0, "attributes": {"device": "tv", "done": False, "n": 3}}
    bare = {"item_id": "item-2", "timestamp": 6.0}
    assert (await bench.client.post("/v1/users/anna/events", json={"events": [bare, rich]})).json()["stored"] == 2
    shown = (await bench.client.get("/v1/users/anna/history")).json()["events"]
    titles = [line.pop("title", None) for line in shown]
    assert shown == [rich, bare]
    assert titles == [CATALOG.title(1), CATALOG.title(2)]


REFUSED = {
    "no object": ([1], "The body must be a JSON object."),
    "null": ({"age": None}, "The body can't hold 'age': its value is no text, number, boolean or list of these."),
    "an object": ({"age": {"of": 3}}, "The body can't hold 'age': its value is no text, number, boolean or list of these."),
    "a list in a list": ({"age": [[1]]}, "The body can't hold 'age': its value is a list in which one is no text, number or boolean."),
    "a long list": ({"age": [1] * 101}, "The body can't hold 'age': its value is a list of 101, and 100 are possible."),
    "a long text": ({"age": "x" * 2001}, "The body can't hold 'age': its value has 2,001 characters, and 2,000 are possible."),
    "a large number": (
        {"age": 2**53},
        "The body can't hold 'age': its value is not finite, or beyond what every JSON parser reads alike (2^53).",
    ),
    "many names": ({str(number): 1 for number in range(51)}, "The body has 51 names, and 50 are possible."),
    "no name": ({"": 1}, "The body has a name that can't be used: names have 1 to 64 characters, which UTF-8 can carry."),
    "a long name": ({"x" * 65: 1}, "The body has a name that can't be used: names have 1 to 64 characters, which UTF-8 can carry."),
    "many bytes": ({str(n): "é" * 1000 for n in range(5)}, f"The body has 10,036 bytes as JSON, and {MAX_FACTS_BYTES:,} are possible."),
}


@pytest.mark.parametrize(("profile", "sentence"), REFUSED.values(), ids=REFUSED)
async def test_a_profile_beyond_its_bounds_gets_one_sentence(bench: Bench, profile: object, sentence: str):
    assert_problem(await bench.client.put(PATH, json=profile), 422, sentence)
    if isinstance(profile, dict):
        for field in ("profile", "context"):
            assert_problem(await bench.recommend(**{field: profile}), 422, sentence.replace("The body", field))
        # What an event may have is less.
        events = {"item_id": "item-1", "attributes": profile}
        assert (await bench.client.post("/v1/users/anna/events", json=events)).status_code == 422
    assert (await bench.histories.read_user("anna")).profile is None


@pytest.mark.parametrize("content", [rb'{"age": NaN}', rb'{"age": [1e999]}', rb'{"age": "\ud800"}', rb'{"\udc00": 1}'])
async def test_what_json_parsers_differ_about_is_refused(bench: Bench, content: bytes):
    response = await bench.client.put(PATH, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert "\\u" not in response.json()["detail"]


async def test_what_a_request_brings_is_taken_and_the_note_says_what_is_not_read(bench: Bench):
    body = {
        "history": ["item-3", {"item_id": "item-1", "kind": "watch", "value": 3, "timestamp": 7.5, "attributes": {"device": "tv"}}],
        "behaviours": {"buy": ["item-2", {"item_id": "item-5", "value": 2}], "like": []},
        "profile": PROFILE,
        "context": {"query": "rainy evening", "hours": [1, 2]},
    }
    response = await bench.recommend(**body)
    assert response.status_code == 200
    assert response.json()["note"] == "The model's prompt does not read behaviours, profile, context."
    assert bench.engine.asked[0].history == [3, 1]
    assert bench.engine.asked[0].excluded == []
    await bench.recommend(**body, exclude_history=True)
    assert bench.engine.asked[1].excluded == [1, 2, 3, 5]
    batch = await bench.client.post("/v1/recommendations:batch", json={"requests": [body, body | {"context": {"query": None}}]})
    assert [entry["status"] for entry in batch.json()["results"]] == [200, 422]
    assert "note" not in (await bench.recommend(profile={}, context={}, behaviours={})).json()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"history": [{"item_id": "item-99"}]}, "The catalog has no item 'item-99', which history names."),
        ({"behaviours": {"buy": ["item-99"]}, "strict_ids": True}, "The catalog has no item 'item-99', which behaviours names."),
        ({"history": ["item-1", {"item": "item-1"}]}, "The field 'history[1].item_id' is missing."),
        ({"history": ["item-1", 7]}, "history[1] must be a valid string, got 7."),
        ({"history": ["item-1", {"item_id": "item-1", "event_id": "a"}]}, "There is no field 'history[1].event_id'."),
        ({"behaviours": ["item-1"]}, "behaviours must be a JSON object."),
        ({"behaviours": {"buy": "item-1"}}, "behaviours.buy must be a valid list."),
        ({"behaviours": {"buy": [{"item_id": "item-1", "value": "secret"}]}}, "behaviours.buy[0].value must be a valid number."),
        ({"behaviours": {str(number): [] for number in range(21)}}, "behaviours has 21 names, and 20 are possible."),
        ({"behaviours": {"buy": ["item-1"] * 10_000}}, "History and behaviours may have 10,000 entries together, got 10,001."),
    ],
)
async def test_lists_that_are_wrong_get_one_sentence(bench: Bench, body: dict[str, object], sentence: str):
    assert_problem(await bench.recommend(**body), 422, sentence)
    assert not bench.engine.asked


async def test_attributes_of_an_event_are_small(bench: Bench):
    for attributes, reason in (
        ({"a": [1]}, "can't hold 'a': its value is no text, number or boolean."),
        ({str(number): 1 for number in range(17)}, "has 17 names, and 16 are possible."),
        ({"a": "x" * 1020}, "has 1,028 bytes as JSON, and 1,024 are possible."),
    ):
        response = await bench.client.post("/v1/users/anna/events", json={"item_id": "item-1", "attributes": attributes})
        assert_problem(response, 422, f"events[0].attributes {reason}")
    assert await bench.histories.read("anna") == []


SECRET = "hunter2"
PRIVATE: list[tuple[str, str, dict[str, object]]] = [
    ("PUT", PATH, {"a": SECRET}),
    ("PUT", PATH, {"a": SECRET * 300}),
    ("PUT", PATH, {"a": {"b": SECRET}}),
    ("POST", "/v1/users/anna/events", {"item_id": "item-1", "kind": SECRET, "value": 5, "attributes": {"a": SECRET}}),
    ("POST", "/v1/users/anna/events", {"item_id": "item-1", "attributes": {"a": [SECRET]}}),
    ("POST", "/v1/users/anna/events", {"item_id": "item-1", "attributes": SECRET}),
    *(
        ("POST", "/v1/recommendations", {"history": ["item-1"], "k": 1} | body)
        for field in ("profile", "context")
        for body in ({field: {"a": SECRET}}, {field: {"a": [[SECRET]]}}, {field: SECRET}, {field: [SECRET]}, {field: {"a": SECRET}, "k": 0})
    ),
    *(
        ("POST", "/v1/recommendations", {"history": ["item-1"], "k": 1, "behaviours": behaviours})
        for behaviours in (
            {SECRET: ["item-1"]},
            {"buy": [{"item_id": "item-1", "kind": SECRET, "attributes": {"a": SECRET}}]},
            {"buy": [{"item_id": "item-1", "value": SECRET}]},
            {"buy": [{"item_id": "item-1", "timestamp": SECRET}]},
            {"buy": [{"item_id": {"a": SECRET}}]},
            {"buy": SECRET},
            SECRET,
        )
    ),
]


async def test_nothing_of_it_is_in_answers_errors_logs_traces_or_metrics(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    exporter, plain = InMemorySpanExporter(), Bench()
    services = Services(
        plain.services.settings,
        plain.services.catalogs,
        plain.engine,
        plain.histories,
        plain.metrics,
        tracing=Tracing(SimpleSpanProcessor(exporter)),
    )
    transport = httpx.ASGITransport(build_app(services), raise_app_exceptions=False)
    said, statuses = [], set()
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for method, path, body in PRIVATE:
            answer = await client.request(method, path, json=body)
            batch = await client.post("/v1/recommendations:batch", json={"requests": [body]})
            said += [answer.text, batch.text]
            statuses.add(answer.status_code)
    assert statuses == {200, 204, 422}
    assert len(exporter.get_finished_spans()) > len(PRIVATE)
    spans = " ".join(span.to_json() for span in exporter.get_finished_spans())
    everything = [*said, caplog.text, spans, plain.metrics.exposition().decode()]
    assert not [text for text in everything if SECRET in text]


def remembered(name: str) -> bool:
    """True if there is a text in memory that a prompt was made of, with a name in it."""
    return any(isinstance(each, ReadText) and name in each.text for each in gc.get_objects())


@pytest.mark.parametrize("path", [PATH, "/v1/users/anna", "/v1/users/anna/history"])
async def test_who_is_forgotten_leaves_no_text_of_a_prompt_in_memory(bench: Bench, tmp_path: Path, path: str):
    form = prompt_of({"format": "jinja", "template": "{{ user.name | default('?') }}: {{ history | join(', ') }}"})
    builder = PromptBuilder(form, PromptTokenizer.of(byte_level(CATALOG.tokens)), CATALOG)
    assert bench.engine.supervisor.ready is not None
    bench.engine.supervisor.ready = msgspec.structs.replace(bench.engine.supervisor.ready, prompts=write_prompts(builder, tmp_path))
    names = {user: f"{user} {uuid4()}" for user in ("anna", "bert")}
    for user, name in names.items():
        await bench.client.put(f"/v1/users/{user}/profile", json={"name": name})
        await bench.client.post(f"/v1/users/{user}/events", json={"item_id": "item-1"})
        assert (await bench.client.post("/v1/recommendations", json={"user_id": user, "k": 1})).status_code == 200
        assert remembered(name)
    assert (await bench.client.delete(path)).status_code == 204
    assert [remembered(name) for name in names.values()] == [False, True]


async def test_a_context_is_read_where_the_requests_own_prompt_reads_it(bench: Bench, tmp_path: Path):
    """Here that of requests that think: others are told, and nothing follows from it for a new user."""
    thinking = {"end": ".", "prompt": {"template": "{{ context.query | default('') }}: {{ history | join }}"}}
    form = prompt_of({"format": "jinja", "template": "{{ history | join }}", "think": thinking})
    builder = PromptBuilder(form, PromptTokenizer.of(byte_level(CATALOG.tokens)), CATALOG)
    assert bench.engine.supervisor.ready is not None
    files = {"prompts": write_prompts(builder, tmp_path), "text_tokens": 9}
    bench.engine.supervisor.ready = msgspec.structs.replace(bench.engine.supervisor.ready, **files)
    await bench.client.post("/v1/users/anna/events", json={"item_id": "item-1"})
    think, context = {"think": {"max_tokens": 5}}, {"context": {"query": "tea"}, "timeout_ms": 20_000}
    new = {"history": None, "user_id": "nobody"} | context
    assert (await bench.recommend(**new)).json()["source"] == "popular"
    unread = "The model's prompt does not read context."
    assert (await bench.recommend(**context)).json()["note"] == unread
    scored = await bench.client.post("/v1/scores", json={"history": ["item-1"], "items": ["item-2"]} | context)
    assert scored.json()["note"] == unread
    for whom in (new, context):
        answer = await bench.recommend(**whom, **think)
        assert answer.status_code == 200
        assert not {"source", "note"} & answer.json().keys()


@pytest.mark.parametrize("entries", [["a", "b"], ["a", {"item_id": "b"}], [{"item_id": "a"}, {"item_id": "b"}]])
def test_entries_are_items_in_the_order_of_the_request(entries: list[object]):
    body = RecommendationRequest.model_validate({"history": entries, "behaviours": {"buy": entries[::-1]}})
    assert item_ids(body.history or ()) == ["a", "b"]
    assert item_ids(body.behaviours["buy"]) == ["b", "a"]


@pytest.mark.parametrize("names", [{f"{i:0300d}": 1 for i in range(20_000)}, {str(i): None for i in range(150_000)}])
def test_a_body_of_mistakes_costs_no_more_than_one(names: dict[str, object]):
    bodies = [
        (ProfileBody, names),
        (EventsBody, {"item_id": "a", "attributes": names}),
        (RecommendationRequest, {"history": ["a"], "context": names}),
        (RecommendationRequest, {"history": ["a"], "behaviours": names}),
        (RecommendationRequest, {"history": ["a"], "behaviours": {"buy": [names] * 1000}}),
        (RecommendationRequest, {"history": [{}] * 10_000}),
    ]
    for model, body in bodies:
        with pytest.raises(ValidationError) as caught:
            model.model_validate(body)
        assert caught.value.error_count() <= 4
