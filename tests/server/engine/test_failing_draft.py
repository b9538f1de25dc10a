"""A draft that fails while it serves, in a real engine process behind the real app."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from drafting.catalog.catalog import Catalog
from server.engine.client import EngineClient
from server.engine.supervisor import EngineStatus
from server.histories import open_history_store
from server.http.app import build_app
from server.metrics.registry import Metrics
from server.services import Services
from server.settings import FlagSettings
from tests.server.engine_process import process_id
from tests.server.stub_catalogs import stub_catalogs
from tests.waiting import until


async def test_a_draft_that_fails_is_dropped_and_serving_goes_on(
    model_dir: Path,
    catalog: Catalog,
    catalog_file: Path,
    run_as_engine: Callable[[str], None],
    capfd: pytest.CaptureFixture[str],
):
    run_as_engine("tests.server.failing_draft_worker")
    settings = FlagSettings(
        target=model_dir, catalog=catalog_file, draft=model_dir, plan="beam:20", engine="transformers", threads=1, timeout_ms=20_000
    )
    metrics = Metrics()
    engine = EngineClient(settings.engine_options, catalog.version, metrics, max_pending=10)
    app = build_app(Services(settings, stub_catalogs(catalog, engine), engine, open_history_store("memory://"), metrics))
    engine.supervisor.start()
    try:
        await until(lambda: engine.supervisor.status is EngineStatus.READY)
        assert metrics.registry.get_sample_value("atspeed_draft_up") == 1
        process = process_id(engine.supervisor)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            answers = [await client.post("/v1/recommendations", json={"history": ["item-1"], "k": 5}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 3
        drafted, *plain = (answer.json() for answer in answers)
        assert (drafted["usage"]["target_forwards"], drafted["usage"]["draft_forwards"], drafted["usage"]["accepted_steps"]) == (1, 2, 2)
        for answer in plain:
            assert [line["item_id"] for line in answer["items"]] == [line["item_id"] for line in drafted["items"]]
            assert (answer["usage"]["target_forwards"], answer["usage"]["draft_forwards"], answer["usage"]["drafted_nodes"]) == (3, 0, 0)
        assert process_id(engine.supervisor) == process
        assert metrics.registry.get_sample_value("atspeed_draft_up") == 0
        assert metrics.registry.get_sample_value("atspeed_drafts_dropped_total") == 1
    finally:
        await engine.supervisor.stop()
    log = capfd.readouterr().err
    assert "The draft model failed and is dropped; serving goes on without it." in log
    assert "the draft is out of memory" in log
