"""The app around an engine that fails as told: every failure becomes the right problem, and is counted."""

import asyncio
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx
import msgspec
import numpy as np
import pytest

from drafting.array_types import IntArray
from drafting.beam.rule import SearchRule, Verification
from drafting.catalog.catalog import Catalog
from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import prompt_of
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserState
from server.catalogs import uploads
from server.catalogs.build import BuildOrder, Built
from server.engine.client import EngineClient
from server.engine.prompts import PromptSource
from server.engine.supervisor import EngineStatus, EngineSupervisor
from server.errors import HistoryDamaged, RequestRefused, ScoresNotFinite
from server.histories import Event, HistoryStore, Retention, StoredUser, open_history_store
from server.histories.memory import MemoryHistoryStore
from server.histories.popularity import Popularity
from server.http.app import build_api, build_app
from server.messages import FinishedList, ForgetUser, ToEngine
from server.metrics.registry import Metrics
from server.scheduling.pending import PendingRequest
from server.services import Services
from server.settings import Settings
from server.submit import Submit
from server.try_again import EngineUnavailable, QueueFull, TooLate
from tests.models import random_catalog
from tests.prompt_tokenizers import first_word_marked
from tests.server.fake_ready import READY, write_fake_prompts
from tests.server.server_process import assert_problem
from tests.server.stub_catalogs import stub_catalogs
from verification.result import BeamResult, RankedItem, Usage

CATALOG = random_catalog(items=20)


class StubSupervisor(EngineSupervisor):
    """That of an engine which is ready, and to which nothing gets through."""

    def __init__(self, settings: Settings, metrics: Metrics, client: EngineClient) -> None:
        super().__init__(settings.engine_options, CATALOG.version, metrics, client)
        self._directory = tempfile.TemporaryDirectory()
        self.status = EngineStatus.READY
        prompts = write_fake_prompts(Path(self._directory.name), max_items=3)
        self.ready = msgspec.structs.replace(READY, catalog_version=CATALOG.version, max_items=3, prompts=prompts)
        self.told: list[ToEngine] = []

    def tell(self, message: ToEngine) -> None:
        self.told.append(message)


class StubEngine(EngineClient):
    """An engine that answers, or raises what it is told to."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        super().__init__(settings.engine_options, CATALOG.version, metrics, max_pending=1)
        self.supervisor = stub = StubSupervisor(settings, metrics, self)
        self.told = stub.told
        self.error: Exception | None = None
        self.asked: list[Submit] = []

    @contextmanager
    def admit(self, submit: Submit, items: int | None = None, *, traced: bool = False) -> Iterator[PendingRequest]:
        """Refuses nothing."""
        self._admission.enter(request := PendingRequest(submit, work=1))
        try:
            yield request
        finally:
            self._admission.leave(request)

    async def search(self, request: PendingRequest) -> FinishedList:
        self.asked.append(submit := request.submit)
        if self.error is not None:
            raise self.error
        rule = SearchRule(submit.verification, submit.seed, submit.temperature)
        if submit.scored is not None:
            return FinishedList(BeamResult(submit.request_id, (), Usage(1), scores=submit.scored.items), 0.001, 0.002)
        return FinishedList(BeamResult(submit.request_id, (RankedItem(0, -1.0, 1),), Usage(1, 0, 1), rule), 0.001, 0.002)


class Bench:
    def __init__(self, histories: HistoryStore | None = None, popularity: Popularity | None = None, **options: Any) -> None:
        settings = Settings(target=Path("models/stub"), catalog=Path("catalog.jsonl"), engine="transformers", **options)
        self.metrics = Metrics()
        self.engine = StubEngine(settings, self.metrics)
        self.histories = histories or open_history_store("memory://")
        parts = settings, stub_catalogs(CATALOG, self.engine), self.engine, self.histories, self.metrics
        self.services = Services(*parts, popularity=popularity)
        transport = httpx.ASGITransport(build_app(self.services), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def recommend(self, **body: object) -> httpx.Response:
        return await self.client.post("/v1/recommendations", json={"history": ["item-1"], "k": 1} | body)

    def count(self, status: int) -> float | None:
        labels = {"method": "POST", "route": "/v1/recommendations", "status": str(status)}
        return self.metrics.registry.get_sample_value("atspeed_http_responses_total", labels)


@pytest.fixture
def bench() -> Iterator[Bench]:
    return Bench()


@pytest.fixture(scope="module")
def refusing() -> Iterator[Bench]:
    """For requests that change nothing: an application takes longer to build than they take."""
    return Bench()


@pytest.mark.parametrize(
    ("error", "status", "sentence", "retry_after"),
    [
        (EngineUnavailable("The engine is away.", 7), 503, "The engine is away.", "7"),
        (QueueFull("It is crowded.", 2), 429, "It is crowded.", "2"),
        (TooLate("It would be late.", 3), 429, "It would be late.", "3"),
        (RequestRefused("This is too much."), 422, "This is too much.", None),
        (TimeoutError(), 504, "The answer was not ready within the request's timeout.", None),
        (RuntimeError("the password is secret"), 500, "Something went wrong inside the server; its log says what.", None),
    ],
)
async def test_a_failure_becomes_a_problem_and_is_counted(
    bench: Bench, error: Exception, status: int, sentence: str, retry_after: str | None
):
    bench.engine.error = error
    response = await bench.recommend()
    assert_problem(response, status, sentence)
    assert response.headers.get("retry-after") == retry_after
    assert response.headers["x-request-id"]
    assert bench.count(status) == 1


async def test_refusals_are_counted_by_their_reason(bench: Bench):
    for error in (QueueFull("", 1), TooLate("", 1), TooLate("", 1), TimeoutError()):
        bench.engine.error = error
        await bench.recommend()
    counted = [bench.metrics.registry.get_sample_value("atspeed_refused_requests_total", {"reason": r}) for r in ("queue-full", "deadline")]
    assert counted == [1, 2]


async def test_without_prompts_requests_and_entries_are_told_to_come_again(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> PromptBuilder:
        raise PromptError("The template took too long, which it says of the shop's own users.")

    monkeypatch.setattr(PromptSource, "builder", fail)
    assert bench.metrics.registry.get_sample_value("atspeed_ready") == 1
    response = await bench.recommend()
    sentence = "The server can't make prompts for this version of the catalog now; it tries again, and its log says what is in the way."
    for refused in (response, await bench.client.get("/ready")):
        assert_problem(refused, 503, sentence)
        assert refused.headers["retry-after"] == "5"
    assert (await bench.client.get("/health")).status_code == 200
    assert bench.metrics.registry.get_sample_value("atspeed_ready") == 0
    entries = [{"history": ["item-1"], "k": 1}, {"history": ["item-1"], "k": 0}]
    batch = (await bench.client.post("/v1/recommendations:batch", json={"requests": entries})).json()["results"]
    assert [entry["status"] for entry in batch] == [503, 422]
    assert batch[0]["problem"]["detail"] == sentence
    assert not bench.engine.asked


async def test_lists_are_counted_by_their_outcome_alone_and_in_batches(bench: Bench):
    """A batch is answered with 200 whatever becomes of its lists; an invalid body asks for none."""

    def counted(status: str) -> float | None:
        return bench.metrics.registry.get_sample_value("atspeed_lists_total", {"status": status})

    assert [counted(status) for status in ("200", "500", "503", "504")] == [0, 0, 0, 0]
    entries = [{"history": ["item-1"], "k": 1}, {"history": ["item-1"], "k": 0}]
    errors = [None, TimeoutError(), EngineUnavailable("The engine is away.", 7), ScoresNotFinite(), QueueFull("It is crowded.", 2)]
    for bench.engine.error in errors:
        answer = await bench.client.post("/v1/recommendations:batch", json={"requests": entries})
        assert answer.status_code == 200
        await bench.recommend()
    assert {status: counted(status) for status in ("200", "504", "503", "500", "429", "422")} == {
        **dict.fromkeys(("200", "504", "503", "500", "429"), 2),
        "422": None,
    }


async def test_lists_of_a_batch_that_an_error_ends_are_no_lists_that_a_client_left(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    async def search(request: PendingRequest) -> FinishedList:
        if request.submit.beam_width == 2:
            raise RuntimeError("broken")
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(bench.engine, "search", search)
    entries = [{"history": ["item-1"], "k": 1, "beam_width": width} for width in (1, 1, 2)]
    answer = await bench.client.post("/v1/recommendations:batch", json={"requests": entries})
    assert answer.status_code == 500
    counted = {status: bench.metrics.registry.get_sample_value("atspeed_lists_total", {"status": status}) for status in ("500", "499")}
    assert counted == {"500": 3, "499": None}


async def test_a_full_batch_does_not_keep_others_waiting(bench: Bench):
    # Makes the builder of prompts, for which every entry would wait.
    await bench.recommend()
    bench.engine.asked.clear()
    entries = [{"history": ["item-1"], "k": 1}] * 256
    batch = asyncio.create_task(bench.client.post("/v1/recommendations:batch", json={"requests": entries}))
    begun = []
    while not batch.done():
        # A turn of the event loop: another client's work.
        await asyncio.sleep(0)
        begun.append(len(bench.engine.asked))
    assert (await batch).json()["succeeded"] == 256
    assert {count for count in begun if 0 < count < 256} == set(range(1, 256))


async def test_a_chat_template_that_fails_is_a_fault_of_what_it_was_given(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """The sentence that stands in the template is told; one that it makes of what is known of a user, or a library does, is not."""
    tokenizer = first_word_marked(sorted(CATALOG.tokens))
    tokenizer.chat_template = (
        "{% set text = messages[0].content %}\n{% if 'loud' in text %}{{ raise_exception('Nobody may shout.') }}{% endif %}"
        "{% if 'odd' in text %}{{ raise_exception(text) }}{% endif %}{% if 'even' in text %}{{ text + 1 }}{% endif %}{{ text }}"
    )
    content = "{{ history | join }}{{ context.mood | default('') }}"
    form = prompt_of({"chat": True, "messages": [{"role": "user", "content": content}]})
    monkeypatch.setattr(PromptSource, "builder", lambda _, catalog: PromptBuilder(form, PromptTokenizer.of(tokenizer), catalog))
    place, unusable = "The tokenizer's chat template, line 2", "it can't be rendered with a value that is known of this user"
    for mood, sentence in (("loud", "Nobody may shout"), ("odd", unusable), ("even", unusable)):
        assert_problem(await bench.recommend(context={"mood": mood}), 422, f"{place}: {sentence}.")
    assert not bench.engine.asked
    assert (await bench.recommend(context={"mood": "calm"})).status_code == 200
    assert (await bench.client.get("/ready")).status_code == 200


async def test_a_server_on_its_way_out_is_alive_but_not_ready_and_takes_no_request(bench: Bench):
    """Its answers close their connections, or clients would ask it again by them; not that to an upload, which is still being sent."""
    assert "connection" not in (await bench.client.get("/health")).headers
    bench.services.drain.begin()
    for response in (await bench.recommend(), await bench.client.get("/ready")):
        assert_problem(response, 503, "The server is shutting down.")
        assert response.headers["retry-after"] == "1"
        assert response.headers["connection"] == "close"
    upload = await bench.client.put("/v1/catalogs/new", content=b"{}", headers={"content-type": "application/x-ndjson"})
    assert_problem(upload, 503, "The server is shutting down.")
    assert "connection" not in upload.headers
    assert (await bench.client.get("/health")).status_code == 200
    assert bench.metrics.registry.get_sample_value("atspeed_ready") == 0
    assert not bench.engine.asked


async def test_a_batch_is_finished_or_refused_as_a_whole_by_a_server_that_is_told_to_end(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    # Makes the builder of prompts, for which every entry would wait.
    await bench.recommend()
    bench.engine.asked.clear()
    search = bench.engine.search

    async def told_to_end(request: PendingRequest) -> FinishedList:
        bench.services.drain.begin()
        return await search(request)

    monkeypatch.setattr(bench.engine, "search", told_to_end)
    entries = {"requests": [{"history": ["item-1"], "k": 1}] * 3}
    assert (await bench.client.post("/v1/recommendations:batch", json=entries)).json()["succeeded"] == 3
    later = await bench.client.post("/v1/recommendations:batch", json=entries)
    assert_problem(later, 503, "The server is shutting down.")
    assert later.headers["retry-after"] == "1"
    assert len(bench.engine.asked) == 3
    assert bench.services.drain.running == 0


@pytest.mark.parametrize(
    ("options", "widths"), [({}, [50, 50, 100]), ({"beam_width": 1}, [1, 10, 100]), ({"beam_width": 80}, [80, 80, 100])]
)
async def test_a_request_that_names_no_beam_width_gets_the_servers_or_k(options: dict[str, int], widths: list[int]):
    bench = Bench(**options)
    for k in (1, 10, 100):
        await bench.recommend(k=k)
        await bench.recommend(k=k, beam_width=k + 1)
        await bench.recommend(k=k, verification="gumbel")
    asked = [submit.beam_width for submit in bench.engine.asked]
    assert asked[::3] == widths
    assert asked[1::3] == [2, 11, 101]
    assert asked[2::3] == [1, 10, 100]


async def test_a_request_that_names_no_beam_width_gets_none_that_the_plan_refuses(bench: Bench):
    bench.engine.supervisor.ready = msgspec.structs.replace(bench.engine.supervisor.ready, widest_beam=12)
    for k in (1, 20):
        await bench.recommend(k=k)
    assert [submit.beam_width for submit in bench.engine.asked] == [12, 20]


async def test_the_engine_is_asked_in_indices_with_the_window_and_the_servers_timeout(bench: Bench):
    response = await bench.recommend(
        history=["item-1", "item-2", "item-3", "item-4"], k=2, exclude=["item-9", "item-5"], exclude_history=True
    )
    assert response.json()["note"].startswith("The model reads at most the newest 3 of the 4 items in the history.")
    (asked,) = bench.engine.asked
    assert asked.user is None
    assert asked.history == [1, 2, 3, 4]
    # The prompt has the newest 3, or fewer where the window begins later.
    tokens = np.frombuffer(asked.prompt, np.int32)
    assert len(tokens) in (2 * CATALOG.identifier_length, 3 * CATALOG.identifier_length)
    assert asked.excluded == [1, 2, 3, 4, 5, 9]
    assert (asked.k, asked.beam_width) == (2, 50)
    assert asked.deadline - asked.submitted == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(
    ("body", "note"),
    [
        (
            {"beam_widths": [1, 5]},
            "The search found only 1 identifiers of the catalog, fewer than the 5 asked for: wider beam_widths may find more.",
        ),
        ({"beam_widths": [2, 5]}, "Only 1 identifiers of the catalog were eligible, fewer than the 5 asked for."),
        (
            {"beam_widths": [1, 5], "diversity": {"attribute": "title", "at_most": 1}},
            "Only 1 identifiers of the catalog were eligible under the cap of diversity, fewer than the 5 asked for.",
        ),
    ],
)
async def test_a_list_that_narrow_levels_may_have_left_short_is_not_called_all_that_is_eligible(
    bench: Bench, body: dict[str, object], note: str
):
    """A search that has found fewer than its narrowest level keeps has left nothing out, and one with caps goes on until it has not."""
    assert (await bench.recommend(k=5, **body)).json()["note"] == note


async def test_the_engine_is_asked_by_the_rule_of_the_request():
    bench = Bench()
    assert (await bench.recommend()).json()["verification"] == "strict"
    assert (await bench.recommend(verification="relaxed", seed=8, temperature=0.5)).json()["seed"] == 8
    asked = [(submit.verification, submit.seed, submit.temperature) for submit in bench.engine.asked]
    assert asked == [(Verification.STRICT, 0, 1.0), (Verification.RELAXED, 8, 0.5)]


async def test_the_servers_verification_holds_where_a_request_names_none():
    bench = Bench(verification=Verification.GUMBEL)
    answer = (await bench.recommend(temperature=3)).json()
    (asked,) = bench.engine.asked
    assert answer["verification"] == "gumbel"
    assert answer["seed"] == asked.seed < 2**53
    assert (asked.verification, asked.temperature) == (Verification.GUMBEL, 3.0)
    answer = (await bench.recommend(verification="strict")).json()
    assert answer["verification"] == "strict"
    assert "seed" not in answer


@pytest.mark.parametrize(
    ("temperature", "sentence"),
    [
        ("NaN", "temperature must be a finite number, got nan."),
        ("Infinity", "temperature must be a finite number, got inf."),
        ('"warm"', "temperature must be a valid number, got warm."),
    ],
)
async def test_a_temperature_is_a_number(refusing: Bench, temperature: str, sentence: str):
    body = f'{{"history": ["item-1"], "verification": "gumbel", "temperature": {temperature}}}'
    response = await refusing.client.post("/v1/recommendations", content=body, headers={"Content-Type": "application/json"})
    assert_problem(response, 422, sentence)


async def test_stored_items_that_left_the_catalog_are_passed_over():
    bench = Bench(cold_start="none")
    gone = [Event(f"gone-{i}", float(10 + i)) for i in range(8)]
    await bench.histories.append("anna", [Event("item-1", 1.0), Event("item-2", 2.0), *gone])
    assert (await bench.recommend(history=None, user_id="anna")).status_code == 200
    assert (bench.engine.asked[0].history, bench.engine.asked[0].user) == ([1, 2], "anna")
    await bench.histories.append("berta", gone)
    response = await bench.recommend(history=None, user_id="berta")
    sentence = f"None of the stored items of user 'berta' is in the catalog (version {CATALOG.version})."
    assert_problem(response, 422, sentence)


class HangingHistories(MemoryHistoryStore):
    """A store that does not answer, and would say so itself much later."""

    async def read_user(self, user_id: str, limit: int | None = None) -> StoredUser:
        await asyncio.sleep(30)
        raise AssertionError


async def test_a_store_that_is_slower_than_it_may_be_is_unavailable_and_counted():
    bench = Bench(HangingHistories(Retention()), history_timeout_ms=1)
    response = await bench.recommend(history=None, user_id="anna", timeout_ms=20_000)
    assert_problem(response, 503, "The history store can't be reached now; requests with an inline history still work.")
    assert response.headers["retry-after"] == "1"
    assert bench.metrics.registry.get_sample_value("atspeed_history_errors_total", {"operation": "read"}) == 1
    assert not bench.engine.asked


async def test_a_client_that_is_less_patient_than_the_store_may_be_slow_is_no_failure_of_the_store():
    """Nor is one whose time was over before the store was asked."""
    bench = Bench(HangingHistories(Retention()), history_timeout_ms=10_000)
    for timeout_ms in (1, 50):
        response = await bench.recommend(history=None, user_id="anna", timeout_ms=timeout_ms)
        assert_problem(response, 504, "The answer was not ready within the request's timeout.")
    assert not bench.metrics.registry.get_sample_value("atspeed_history_errors_total", {"operation": "read"})


async def test_no_request_waits_beyond_its_deadline_for_a_builder_of_prompts(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """One that is being made goes on, for the others."""
    may_end, make = threading.Event(), PromptSource.builder

    def slow(source: PromptSource, catalog: Catalog) -> PromptBuilder:
        may_end.wait(60)
        return make(source, catalog)

    monkeypatch.setattr(PromptSource, "builder", slow)
    late = await asyncio.gather(
        bench.recommend(timeout_ms=30), bench.client.post("/v1/scores", json={"history": ["item-1"], "items": ["item-2"], "timeout_ms": 30})
    )
    for response in late:
        assert_problem(response, 504, "The answer was not ready within the request's timeout.")
    may_end.set()
    assert (await bench.recommend(timeout_ms=60_000)).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/v1/recommendations", rb'{"user_id": "\ud800"}', r"user_id holds text that UTF-8 can't carry: '\ud800'."),
        ("/v1/recommendations", b'{"user_id": "\xed\xa0\x80"}', r"user_id holds text that UTF-8 can't carry: '\ud800'."),
        ("/v1/recommendations", rb'{"history": ["item-1", "\udc00x"]}', r"history[1] holds text that UTF-8 can't carry: '\udc00x'."),
        ("/v1/recommendations", rb'{"history": ["item-1"], "k": "\ud800"}', r"k must be a valid integer, got \ud800."),
        ("/v1/recommendations", rb'{"history": ["item-1"], "\ud800": 1}', r"The body holds text that UTF-8 can't carry: '\ud800'."),
        ("/v1/users/a/events", rb'{"item_id": "\ud800"}', r"events[0].item_id holds text that UTF-8 can't carry: '\ud800'."),
        ("/v1/users/a/events", rb'{"item_id": "item-1", "\ud800": {}}', r"events[0] holds text that UTF-8 can't carry: '\ud800'."),
    ],
)
async def test_half_a_surrogate_pair_gets_one_sentence(refusing: Bench, path: str, body: bytes, sentence: str):
    response = await refusing.client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert_problem(response, 422, sentence)


EVENT = {"item_id": "item-1"}


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        ({"value": "62kg"}, "value must be a valid number."),
        ({"value": 10**20}, "value must be less than or equal to 9007199254740991."),
        ({"kind": 5}, "kind must be a valid string."),
        ({"kind": ""}, "kind must have at least 1 character."),
        ({"kind": "\ud800"}, "kind holds text that UTF-8 can't carry."),
        ({"attributes": 62}, "attributes must be a JSON object."),
        ({"attributes": {"weight": [62]}}, "attributes can't hold 'weight': its value is no text, number or boolean."),
    ],
)
async def test_no_sentence_says_what_an_event_says_of_a_person(refusing: Bench, event: dict[str, object], sentence: str):
    told = EVENT | event
    for path, body, field in (
        ("/v1/users/a/events", {"events": [told]}, "events[0]"),
        ("/v1/recommendations", {"history": ["item-1", told]}, "history[1]"),
        ("/v1/recommendations", {"behaviours": {"buy": [told]}}, "behaviours.buy[0]"),
    ):
        content = json.dumps(body)
        response = await refusing.client.post(path, content=content, headers={"Content-Type": "application/json"})
        assert_problem(response, 422, f"{field}.{sentence}")


@pytest.mark.parametrize("user", ["a/b", "/a", "a/", "a/events", "a/history", "events", "a\nb", "a//b", "a/events/history"])
async def test_a_user_id_may_have_slashes(bench: Bench, user: str):
    path = f"/v1/users/{quote(user, safe='')}"
    assert (await bench.client.post(f"{path}/events", json={"item_id": "item-1"})).json()["user_id"] == user
    assert (await bench.client.get(f"{path}/history")).json()["user_id"] == user
    assert (await bench.recommend(history=None, user_id=user)).status_code == 200
    assert (await bench.client.delete(path)).status_code == 204
    assert (await bench.client.get(f"{path}/history")).status_code == 404


async def test_a_user_without_an_id_and_a_method_that_is_not_there_get_one_sentence(bench: Bench):
    assert_problem(await bench.client.get("/v1/users//history"), 422, "user_id must have at least 1 character.")
    assert_problem(await bench.client.get("/v1/users/a"), 405, "GET is not possible at '/v1/users/a'; see /docs for what is.")


@pytest.mark.parametrize(
    ("status", "health", "ready"),
    [
        (EngineStatus.STARTING, 200, 503),
        (EngineStatus.READY, 200, 200),
        (EngineStatus.RESTARTING, 503, 503),
        (EngineStatus.FAILED, 503, 503),
        (EngineStatus.STOPPED, 503, 503),
    ],
)
async def test_health_and_readiness_follow_the_engine(bench: Bench, status: EngineStatus, health: int, ready: int):
    bench.engine.supervisor.status = status
    assert (await bench.client.get("/health")).status_code == health
    assert bench.metrics.registry.get_sample_value("atspeed_ready") == (ready == 200)
    assert (await bench.client.get("/ready")).status_code == ready


async def test_routes_are_counted_by_template_and_methods_are_few(bench: Bench):
    await bench.client.get("/v1/users/someone/history")
    await bench.client.request("BREW", "/coffee")
    text = bench.metrics.exposition().decode()
    assert 'route="/v1/users/{user_id}/history",status="404"' in text
    assert 'method="other",route="unmatched"' in text
    assert "someone" not in text
    assert "coffee" not in text


def test_every_example_in_the_documentation_is_a_valid_body(bench: Bench):
    from server.schemas.catalogs import ItemsAdded, NewItemsBody
    from server.schemas.recommendations import RecommendationAnswer, RecommendationRequest
    from server.schemas.users import EventsBody, ProfileAnswer, ProfileBody

    schemas = build_api(bench.services).openapi()["components"]["schemas"]
    for model in (RecommendationRequest, EventsBody, ProfileBody, ProfileAnswer, RecommendationAnswer, NewItemsBody, ItemsAdded):
        assert schemas[model.__name__]["examples"]
        for example in schemas[model.__name__]["examples"]:
            model.model_validate(example)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/users/%ff/events"),
        ("GET", "/v1/users/%fe%80/history"),
        ("DELETE", "/v1/users/a%c3"),
        ("DELETE", "/v1/users/a%c3/history"),
        ("GET", "/v1/users/%ed%a0%80/history"),
        ("GET", "/v1/users/%C0%AF/history"),
        ("GET", "/v1/users/anna/history?limit=%ff"),
        ("GET", "/v1/users/anna/history?%ff=1"),
        ("PUT", "/v1/catalog/filters/%ff"),
        ("GET", "/v1/catalog/filters/%ff"),
        ("DELETE", "/v1/catalog/filters/%ff"),
        ("GET", "/v1/catalog/items?offset=%80"),
        ("PUT", "/v1/catalogs/%ff"),
        ("POST", "/v1/catalogs/%ff/activate"),
        ("DELETE", "/v1/catalogs/%ff"),
        ("GET", "/health?%ff"),
        ("GET", "/%ff"),
    ],
)
async def test_a_url_that_is_not_utf8_is_refused_and_never_taken_for_another(refusing: Bench, method: str, path: str):
    response = await refusing.client.request(method, httpx.URL(f"http://localhost{path}"), json={"item_id": "item-1"})
    assert response.status_code == 400
    assert (
        response.json()["detail"]
        == "The URL holds percent-encoded bytes that are not UTF-8: encode text as UTF-8 before it is percent-encoded."
    )
    assert response.headers["x-request-id"]
    assert await refusing.histories.read("\ufffd") == []


@pytest.mark.parametrize("path", ["/nowhere/a%3Fb", "/nowhere/a%23b%5Cc", "/nowhere/a%0Ab", "/v1/users/a%3Fb/history"])
async def test_a_problem_names_the_path_as_it_was_asked_for(refusing: Bench, path: str):
    response = await refusing.client.get(httpx.URL(f"http://localhost{path}"))
    assert response.status_code == 404
    assert response.json()["instance"] == unquote(path)


JSON_PATHS = ["/v1/recommendations", "/v1/recommendations:batch", "/v1/users/a/events", "/v1/catalogs/rollback", "/v1/catalogs/films"]


async def send(bench: Bench, path: str, body: bytes) -> httpx.Response:
    method = "PUT" if path == "/v1/catalogs/films" else "POST"
    return await bench.client.request(method, path, content=body, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("path", JSON_PATHS)
@pytest.mark.parametrize(
    "body", [b'{"user_id": "\xff"}', b'{"item_id": "\xc0\xaf"}', b"\xfe", b'{"k": ' + b"9" * 5000 + b"}", b"[" * 100_000]
)
async def test_a_body_that_can_not_be_read_is_refused(refusing: Bench, path: str, body: bytes):
    assert_problem(await send(refusing, path, body), 400, "The body can't be read as JSON.")


@pytest.mark.parametrize("path", JSON_PATHS)
async def test_a_body_that_is_no_json_is_refused_with_the_place(refusing: Bench, path: str):
    response = await send(refusing, path, b'{"path": ')
    assert_problem(response, 400, "The body is not valid JSON: Expecting value at character 9.")
    assert response.json()["type"] == "urn:atspeed:malformed-json"


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/json"])
async def test_a_body_that_is_not_declared_as_json_is_told_so_by_every_operation(refusing: Bench, kind: str):
    """Such as what curl sends by `-d`, and as JSON is called now and then."""
    tried = 0
    for path, operations in build_api(refusing.services).openapi()["paths"].items():
        url = path.replace("{user_id}", "a").replace("{name}", "a").replace("{version}", "a")
        for method, operation in operations.items():
            if "application/json" in operation.get("requestBody", {}).get("content", {}):
                response = await refusing.client.request(method, url, content=b'{"country": "DE"}', headers={"Content-Type": kind})
                assert (response.status_code, "application/json" in response.json()["detail"]) == (415, True), (method, path)
                tried += 1
    assert tried > 9


async def test_a_catalog_is_uploaded_at_any_size_and_named_in_few_bytes(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def look(_: str, order: BuildOrder, *__: object) -> Built:
        return Built(f"It has {Path(order.source).stat().st_size} bytes.")

    (tmp_path / "catalogs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(uploads, "run_in_background", look)

    async def body():
        for _ in range(3):
            yield b" " * 2**20

    response = await bench.client.put("/v1/catalogs/a", content=body(), headers={"Content-Type": "application/json; charset=utf-8"})
    assert_problem(response, 413, "The body is larger than the 2048 KiB that this server reads.")
    response = await bench.client.put("/v1/catalogs/a", content=body(), headers={"Content-Type": "application/x-ndjson"})
    assert_problem(response, 422, f"It has {3 * 2**20} bytes.")


async def test_a_replacement_character_that_was_meant_is_a_text_like_any_other(bench: Bench):
    path = f"/v1/users/{quote(chr(0xFFFD))}"
    assert (await bench.client.post(f"{path}/events", json={"item_id": "item-1"})).json()["user_id"] == "\ufffd"
    assert (await bench.client.get(f"{path}/history")).status_code == 200


GETS = ["/health", "/ready", "/version", "/metrics", "/v1/catalog", "/v1/catalog/items", "/v1/catalog/filters", "/v1/catalogs", "/docs"]


@pytest.mark.parametrize("path", [*GETS, "/v1/users/nobody/history", "/nowhere"])
async def test_head_is_get_without_the_body(bench: Bench, path: str):
    got, head = await bench.client.get(path), await bench.client.head(path)
    assert head.status_code == got.status_code
    assert head.content == b""
    for name in ("content-type", "x-content-type-options"):
        assert head.headers[name] == got.headers[name]
    if path != "/metrics":
        assert head.headers["content-length"] == str(len(got.content))
    assert f'method="HEAD",route="{path if path in GETS[:-1] else ""}' in bench.metrics.exposition().decode()


async def test_no_answer_is_to_be_taken_for_another_type(bench: Bench):
    bench.engine.error = RuntimeError()
    for response in (
        await bench.recommend(),
        await bench.client.get("/health"),
        await bench.client.get("/v1/users/%ff/history"),
        await bench.client.get("/nowhere"),
        await bench.client.delete("/health"),
    ):
        assert response.headers.get_list("x-content-type-options") == ["nosniff"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/health", "GET, HEAD"),
        ("GET", "/v1/recommendations", "POST"),
        ("HEAD", "/v1/recommendations", "POST"),
        ("PATCH", "/v1/catalog/filters/a", "DELETE, GET, HEAD, PUT"),
        ("DELETE", "/v1/catalog/items", "GET, HEAD, POST"),
        ("PUT", "/v1/users/a/history", "DELETE, GET, HEAD"),
        ("PUT", "/v1/users/a/events", "DELETE, POST"),
        ("GET", "/v1/users/a", "DELETE"),
        ("PATCH", "/v1/catalogs/a", "DELETE, PUT"),
    ],
)
async def test_a_method_that_is_not_possible_is_told_with_all_that_are(bench: Bench, method: str, path: str, allowed: str):
    response = await bench.client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    for possible in allowed.split(", "):
        assert (await bench.client.request(possible, path)).status_code != 405


async def test_a_history_is_forgotten_by_its_own_path_too(bench: Bench):
    for user in ("a", "a/history", "a/b"):
        await bench.histories.append(user, [Event("item-1", 1.0)])
    assert (await bench.client.delete("/v1/users/a/history")).status_code == 204
    assert [len(await bench.histories.read(user)) for user in ("a", "a/history", "a/b")] == [0, 1, 1]
    assert_problem(await bench.client.delete("/v1/users/a/history"), 404, "There is no user 'a': no events are stored for that id.")
    assert (await bench.client.delete("/v1/users/a%2Fhistory")).status_code == 204
    assert (await bench.client.delete("/v1/users/a%2Fb/history")).status_code == 204
    assert [len(await bench.histories.read(user)) for user in ("a", "a/history", "a/b")] == [0, 0, 0]


async def test_who_is_deleted_is_forgotten_by_the_engine_too(bench: Bench):
    for user in ("ann", "bob", "cem"):
        await bench.histories.append(user, [Event("item-1", 1.0)])
        await bench.client.put(f"/v1/users/{user}/profile", json={"age": 30})
    for path in ("ann", "bob/history", "cem/profile", "nobody"):
        await bench.client.delete(f"/v1/users/{path}")
    assert bench.engine.told == [ForgetUser(user) for user in ("ann", "bob", "cem", "nobody")]


async def test_who_is_deleted_while_a_request_is_under_way_is_not_remembered_for_its_sake(monkeypatch: pytest.MonkeyPatch):
    class DeletedMeanwhile(MemoryHistoryStore):
        async def read_user(self, user_id: str, limit: int | None = None) -> StoredUser:
            stored = await super().read_user(user_id, limit)
            assert (await bench.client.delete("/v1/users/ann")).status_code in (204, 404)
            return stored

    def build(builder: PromptBuilder, user: UserState, *, thinks: bool) -> IntArray:
        # As builders of text forms do, which keep the text of a user's last prompt.
        remembered.add(user.user_id)
        return built(builder, user, thinks=thinks)

    remembered: set[str | None] = set()
    built = PromptBuilder.build
    monkeypatch.setattr(PromptBuilder, "build", build)
    monkeypatch.setattr(PromptBuilder, "forget", lambda _, user: remembered.discard(user))
    bench = Bench(DeletedMeanwhile(Retention()))
    for user in ("ann", "bob"):
        await bench.histories.append(user, [Event("item-1", 1.0)])
    responses = await asyncio.gather(*(bench.recommend(user_id=user, history=None) for user in ("ann", "bob")))
    assert [response.status_code for response in responses] == [200, 200]
    assert sorted(submit.user or "" for submit in bench.engine.asked) == ["", "bob"]
    assert remembered == {"bob"}


LARGE = ["9223372036854775807", "9223372036854775808", "18446744073709551616", "1" + "0" * 30, "9" * 400, "9" * 5000, "1e400"]


@pytest.mark.parametrize("number", LARGE, ids=lambda number: f"{len(number)} digits")
async def test_a_number_that_no_field_holds_is_refused_wherever_it_stands(refusing: Bench, number: str):
    """Every number of every query, by the documentation, so that a new one is not forgotten; and those of some bodies."""
    openapi = build_api(refusing.services).openapi()
    tried = 0
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            url = path.replace("{user_id}", "a").replace("{name}", "a").replace("{version}", "a")
            for parameter in operation.get("parameters", []):
                # A text may be a number, too.
                kinds = {kind.get("type") for kind in parameter["schema"].get("anyOf", [parameter["schema"]])}
                if parameter["in"] == "query" and "string" not in kinds:
                    response = await refusing.client.request(method, f"{url}?{parameter['name']}={number}")
                    assert response.status_code == 422, (method, url, parameter["name"])
                    tried += 1
    for url, before, after in BODIES:
        response = await refusing.client.post(url, content=f"{before}{number}{after}", headers={"Content-Type": "application/json"})
        assert response.status_code in (400, 422), (url, before)
        assert response.headers["content-type"] == "application/problem+json"
        tried += 1
    assert tried == 7 + len(BODIES)


BODIES = [
    ("/v1/recommendations", '{"history": ["item-1"], ' + f'"{field}": ', rest)
    for field, rest in (("k", "}"), ("beam_width", "}"), ("timeout_ms", "}"), ("seed", ', "verification": "gumbel"}'))
] + [
    ("/v1/recommendations", '{"history": ["item-1"], "temperature": ', ', "verification": "gumbel"}'),
    ("/v1/recommendations", '{"history": ["item-1"], "fresh": {"min": 1, "max_age_days": ', "}}"),
    ("/v1/recommendations", '{"history": ["item-1"], "fresh": {"max_age_days": 1, "min": ', "}}"),
    ("/v1/users/a/events", '{"item_id": "item-1", "timestamp": ', "}"),
]


async def test_an_event_of_the_future_is_refused_and_changes_nothing(bench: Bench):
    events = [{"item_id": "item-1", "timestamp": time.time() - 5}, {"item_id": "item-2", "timestamp": time.time() + 86_400 + 60}]
    response = await bench.client.post("/v1/users/a/events", json={"events": events})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("events[1].timestamp is more than a day in the future: it is ")
    assert await bench.histories.read("a") == []
    events[1]["timestamp"] -= 120
    assert (await bench.client.post("/v1/users/a/events", json={"events": events})).json()["stored"] == 2


class DamagedHistories(MemoryHistoryStore):
    """A store that can't read what it has of one user."""

    async def read_user(self, user_id: str, limit: int | None = None) -> StoredUser:
        if user_id == "bob":
            raise HistoryDamaged(user_id)
        return await super().read_user(user_id, limit)


async def test_a_damaged_history_is_told_to_its_user_alone_and_counted():
    bench = Bench(DamagedHistories(Retention()))
    await bench.client.post("/v1/users/anna/events", json={"item_id": "item-1"})
    sentence = (
        "What is stored for user 'bob' is damaged and can't be read: delete the user and send the events again, or bring "
        "the history with the request."
    )
    for response in (await bench.client.get("/v1/users/bob/history"), await bench.recommend(history=None, user_id="bob")):
        assert_problem(response, 409, sentence)
    entries = [{"user_id": "bob", "k": 1}, {"user_id": "anna", "k": 1}]
    answer = (await bench.client.post("/v1/recommendations:batch", json={"requests": entries})).json()
    assert [entry["status"] for entry in answer["results"]] == [409, 200]
    assert answer["results"][0]["problem"]["detail"] == sentence
    assert bench.metrics.registry.get_sample_value("atspeed_history_damage_total", {"found": "history"}) == 3


def test_every_operation_documents_its_errors_as_problems(bench: Bench):
    for path, operations in build_api(bench.services).openapi()["paths"].items():
        for method, operation in operations.items():
            answers = operation["responses"]
            assert {"400", "default"} <= set(answers), (method, path)
            if "requestBody" in operation:
                assert {"408", "413", "415", "422"} <= set(answers), (method, path)
            for status, answer in answers.items():
                content = set(answer.get("content", {}))
                if status == "default" or status >= "400":
                    assert content == {"application/problem+json"}, (method, path, status)
                else:
                    assert (
                        content == set() if status == "204" else content <= {"application/json", "text/plain", "application/octet-stream"}
                    ), (method, path, status)
                    assert bool(content) == (status != "204"), (method, path, status)


@pytest.mark.parametrize("path", ["/v1/catalog", "/v1/catalogs", "/v1/catalog/items", "/v1/catalog/items/item-1", "/v1/catalog/filters"])
async def test_before_it_has_read_what_there_is_a_server_shows_nothing_of_it(bench: Bench, path: str):
    follower = bench.services.catalogs.follower
    follower.begun, follower.problem = False, "The control store has not been read yet."
    assert_problem(await bench.client.get(path), 503, f"This server does not do what the others do: {follower.problem}")
    follower.begun, follower.problem = True, None
    assert (await bench.client.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/health/", "/v1/catalog/filters/%2F", "/v1/recommendations/"])
async def test_a_path_with_another_slash_is_another_path(refusing: Bench, path: str):
    answer = await refusing.client.get(path)
    assert answer.status_code in (404, 405)
    assert answer.headers["content-type"] == "application/problem+json"
