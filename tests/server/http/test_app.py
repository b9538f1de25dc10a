"""The app around an engine that fails as told: every failure becomes the right problem, and is counted."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec
import pytest

from drafting.beam.rule import SearchRule, Verification
from server.engine.client import EngineClient, EngineStatus
from server.errors import EngineUnavailable, QueueFull, RequestRefused, TooLate
from server.histories import Event, HistoryStore, Retention, open_history_store
from server.histories.memory import MemoryHistoryStore
from server.http.app import build_api, build_app
from server.messages import FinishedList, Submit
from server.metrics.registry import Metrics
from server.scheduling.admission import PendingRequest
from server.services import Services
from server.settings import Settings
from tests.models import random_catalog
from tests.server.fake_ready import READY
from tests.server.server_process import assert_problem
from tests.server.stub_catalogs import stub_catalogs
from verification.result import BeamResult, RankedItem, Usage

CATALOG = random_catalog(items=20)


class StubEngine(EngineClient):
    """An engine that answers, or raises what it is told to."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        super().__init__(settings.engine_options, CATALOG.version, metrics, max_pending=1)
        self.status = EngineStatus.READY
        self.ready = msgspec.structs.replace(READY, catalog_version=CATALOG.version, max_items=3)
        self.error: Exception | None = None
        self.asked: list[Submit] = []

    @contextmanager
    def admit(self, submit: Submit, items: int | None = None, *, traced: bool = False) -> Iterator[PendingRequest]:
        """Refuses nothing."""
        yield PendingRequest(submit, work=1)

    async def search(self, request: PendingRequest) -> FinishedList:
        self.asked.append(submit := request.submit)
        if self.error is not None:
            raise self.error
        rule = SearchRule(submit.verification, submit.seed, submit.temperature)
        return FinishedList(BeamResult(submit.request_id, (RankedItem(0, -1.0, 1),), Usage(1, 0, 1), rule), 0.001, 0.002)


class Bench:
    def __init__(self, histories: HistoryStore | None = None, verification: Verification = Verification.STRICT) -> None:
        settings = Settings(target=Path("models/stub"), catalog=Path("catalog.jsonl"), engine="transformers", verification=verification)
        self.metrics = Metrics()
        self.engine = StubEngine(settings, self.metrics)
        self.histories = histories or open_history_store("memory://")
        self.services = Services(settings, stub_catalogs(CATALOG, self.engine), self.engine, self.histories, self.metrics)
        transport = httpx.ASGITransport(build_app(self.services), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def recommend(self, **body: object) -> httpx.Response:
        return await self.client.post("/v1/recommendations", json={"history": ["item-1"], "k": 1} | body)

    def count(self, status: int) -> float | None:
        labels = {"method": "POST", "route": "/v1/recommendations", "status": str(status)}
        return self.metrics.registry.get_sample_value("atspeed_http_responses_total", labels)


@pytest.fixture
def bench() -> Iterator[Bench]:
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


async def test_a_server_on_its_way_out_is_alive_but_not_ready_and_takes_no_request(bench: Bench):
    bench.services.drain.begin()
    for response in (await bench.recommend(), await bench.client.get("/ready")):
        assert_problem(response, 503, "The server is shutting down.")
        assert response.headers["retry-after"] == "1"
    assert (await bench.client.get("/health")).status_code == 200
    assert not bench.engine.asked


async def test_the_engine_is_asked_in_indices_with_the_window_and_the_servers_timeout(bench: Bench):
    response = await bench.recommend(
        history=["item-1", "item-2", "item-3", "item-4"], k=2, exclude=["item-9", "item-5"], exclude_history=True
    )
    assert response.json()["note"].startswith("The model reads at most the newest 3 of the 4 items in the history.")
    (asked,) = bench.engine.asked
    assert asked.user is None
    assert asked.history == [1, 2, 3, 4]
    assert asked.excluded == [1, 2, 3, 4, 5, 9]
    assert (asked.k, asked.beam_width) == (2, 2)
    assert asked.deadline - asked.submitted == pytest.approx(1.0, abs=0.2)


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
async def test_a_temperature_is_a_number(bench: Bench, temperature: str, sentence: str):
    body = f'{{"history": ["item-1"], "verification": "gumbel", "temperature": {temperature}}}'
    response = await bench.client.post("/v1/recommendations", content=body, headers={"Content-Type": "application/json"})
    assert_problem(response, 422, sentence)


async def test_stored_items_that_left_the_catalog_are_passed_over(bench: Bench):
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

    async def read(self, user_id: str, limit: int | None = None) -> list[Event]:
        await asyncio.sleep(30)
        raise AssertionError


async def test_a_store_that_is_slower_than_a_request_may_take_is_unavailable_and_counted():
    bench = Bench(HangingHistories(Retention()))
    response = await bench.recommend(history=None, user_id="anna", timeout_ms=50)
    assert_problem(response, 503, "The history store can't be reached now; requests with an inline history still work.")
    assert response.headers["retry-after"] == "1"
    assert bench.metrics.registry.get_sample_value("atspeed_history_errors_total", {"operation": "read"}) == 1
    assert not bench.engine.asked


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/v1/recommendations", rb'{"user_id": "\ud800"}', r"user_id holds text that UTF-8 can't carry: '\ud800'."),
        ("/v1/recommendations", rb'{"history": ["item-1", "\udc00x"]}', r"history[1] holds text that UTF-8 can't carry: '\udc00x'."),
        ("/v1/recommendations", rb'{"history": ["item-1"], "k": "\ud800"}', r"k must be a valid integer, got \ud800."),
        ("/v1/recommendations", rb'{"history": ["item-1"], "\ud800": 1}', r"The body holds text that UTF-8 can't carry: '\ud800'."),
        ("/v1/users/a/events", rb'{"item_id": "\ud800"}', r"events[0].item_id holds text that UTF-8 can't carry: '\ud800'."),
        ("/v1/users/a/events", rb'{"item_id": "item-1", "\ud800": {}}', r"events[0] holds text that UTF-8 can't carry: '\ud800'."),
    ],
)
async def test_half_a_surrogate_pair_gets_one_sentence(bench: Bench, path: str, body: bytes, sentence: str):
    response = await bench.client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert_problem(response, 422, sentence)


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
    bench.engine.status = status
    assert (await bench.client.get("/health")).status_code == health
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
    from server.schemas.users import EventsBody

    schemas = build_api(bench.services).openapi()["components"]["schemas"]
    for model in (RecommendationRequest, EventsBody, RecommendationAnswer, NewItemsBody, ItemsAdded):
        assert schemas[model.__name__]["examples"]
        for example in schemas[model.__name__]["examples"]:
            model.model_validate(example)
