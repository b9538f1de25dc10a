"""The app around an engine that fails as told: every failure becomes the right problem, and is counted."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.app import build_api, build_app
from server.engine_process import EngineClient, EngineStatus, EngineUnavailable, QueueFullError, RequestRefusedError
from server.histories import Event, open_history_store
from server.messages import Cost, FinishedList, Ready, Submit
from server.metrics import Metrics
from server.services import Services
from server.settings import Settings
from tests.models import random_catalog
from tests.server.server_process import assert_problem

CATALOG = random_catalog(items=20)


class StubEngine(EngineClient):
    """An engine that answers, or raises what it is told to."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        super().__init__(settings.engine_options, CATALOG.version, metrics, max_pending=1)
        self.status = EngineStatus.READY
        self.ready = Ready(model="stub", catalog_version=CATALOG.version, max_items=3, total_slots=10)
        self.error: Exception | None = None
        self.asked: list[Submit] = []

    async def search(self, request: Submit) -> FinishedList:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        return FinishedList(request.request_id, [(0, -1.0, 1)], Cost(1, 0, 1, 0, 0), 0.001, 0.002)


class Bench:
    def __init__(self) -> None:
        settings = Settings(target=Path("models/stub"), catalog=Path("catalog.jsonl"), engine="transformers")
        self.metrics = Metrics()
        self.engine = StubEngine(settings, self.metrics)
        self.histories = open_history_store("memory://")
        self.services = Services(settings, CATALOG, self.engine, self.histories, self.metrics)
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
        (QueueFullError("It is crowded.", 2), 429, "It is crowded.", "2"),
        (RequestRefusedError("This is too much."), 422, "This is too much.", None),
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


async def test_the_engine_is_asked_in_indices_with_the_window_and_the_servers_timeout(bench: Bench):
    response = await bench.recommend(
        history=["item-1", "item-2", "item-3", "item-4"], k=2, exclude=["item-9", "item-5"], exclude_history=True
    )
    assert response.json()["note"].startswith("The model reads the newest 3 of the 4 items in the history.")
    (asked,) = bench.engine.asked
    assert asked.history == [2, 3, 4]
    assert asked.excluded == [1, 2, 3, 4, 5, 9]
    assert (asked.k, asked.beam_width) == (2, 2)
    assert asked.deadline - asked.submitted == pytest.approx(1.0, abs=0.2)


async def test_stored_items_that_left_the_catalog_are_passed_over(bench: Bench):
    gone = [Event(f"gone-{i}", float(10 + i)) for i in range(8)]
    await bench.histories.append("anna", [Event("item-1", 1.0), Event("item-2", 2.0), *gone])
    assert (await bench.recommend(history=None, user_id="anna")).status_code == 200
    assert bench.engine.asked[0].history == [1, 2]
    await bench.histories.append("berta", gone)
    response = await bench.recommend(history=None, user_id="berta")
    sentence = f"None of the stored items of user 'berta' is in the catalog (version {CATALOG.version})."
    assert_problem(response, 422, sentence)


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
    from server.schemas import EventsBody, RecommendationAnswer, RecommendationRequest

    schemas = build_api(bench.services).openapi()["components"]["schemas"]
    for model in (RecommendationRequest, EventsBody, RecommendationAnswer):
        assert schemas[model.__name__]["examples"]
        for example in schemas[model.__name__]["examples"]:
            model.model_validate(example)
