"""What clients see of the engine process on a real server: its death, its slowness, and what it reports.

A stopped (SIGSTOP) engine is one that takes arbitrarily long, which makes "under load" and "too late" certain instead of likely.
"""

import asyncio
import json
import time
from contextlib import ExitStack, closing

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from drafting.catalog.catalog import Catalog
from tests.server.server_process import ServerProcess, assert_problem, post


def test_when_the_engine_is_killed_everyone_who_waits_is_told_at_once_and_it_comes_back_with_its_filters(server: ServerProcess):
    titles = ", ".join(f'"Title {i}"' for i in range(60))
    server.client.put("/v1/catalog/filters/even", json={"items": [f"item-{i}" for i in range(0, 200, 2)]})
    server.client.put("/v1/catalog/filters/low", json={"expression": f"title in [{titles}]"})
    filtered = {"history": ["item-3", "item-14"], "k": 5, "filter": {"all": ["even", "low"]}}
    before = server.recommend(**filtered).json()["items"]
    restarts = server.metric("atspeed_engine_restarts_total")
    server.client.post("/v1/users/kept/events", json={"item_id": "item-1"})
    engine = server.engine
    files = server.engine_directory
    assert files.is_dir()
    engine.suspend()
    with server.waiting(16, history=["item-1"], k=3) as waiting:
        engine.kill()
        for connection in waiting:
            answer = connection.getresponse()
            assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json")
            assert json.load(answer)["detail"] == "The engine died while it worked on this request."
            assert int(answer.headers["retry-after"]) >= 1
    # At once: the next engine is not there yet.
    for path in ("/ready", "/health"):
        response = server.client.get(path)
        assert_problem(response, 503, "The engine is being restarted after it died.")
        assert int(response.headers["retry-after"]) >= 1
    assert_problem(server.recommend(history=["item-1"]), 503, "The engine is being restarted after it died.")
    assert server.client.get("/v1/users/kept/history").status_code == 200
    assert server.metric("atspeed_engine_up") == 0
    server.wait_until_ready()
    assert not files.exists()
    assert server.client.get("/health").status_code == 200
    assert server.recommend(user_id="kept", k=3).status_code == 200
    assert server.metric("atspeed_engine_restarts_total") == restarts + 1
    after = server.recommend(**filtered).json()["items"]
    assert [line["item_id"] for line in after] == [line["item_id"] for line in before]
    np.testing.assert_allclose([line["score"] for line in after], [line["score"] for line in before], atol=1e-4)
    for name in ("even", "low"):
        assert server.client.delete(f"/v1/catalog/filters/{name}").status_code == 204


def test_a_timeout_is_kept_and_frees_the_engine(server: ServerProcess):
    with server.stopped_engine():
        started = time.monotonic()
        response = server.recommend(history=["item-1"], timeout_ms=100)
        # That of the request and not that of the server, which is 20 s.
        assert time.monotonic() - started < 10
        assert_problem(response, 504, "The answer was not ready within the request's timeout.")
    assert server.recommend(history=["item-1"]).status_code == 200
    server.wait_for(lambda: server.metric("atspeed_kv_slots_used") == server.metric("atspeed_running_requests") == 0)


def test_a_client_that_hangs_up_costs_the_engine_nothing(server: ServerProcess):
    # What others have left there ends first.
    server.wait_for(lambda: server.metric("atspeed_running_requests") == server.metric("atspeed_waiting_requests") == 0)
    finished, gone = server.metric("atspeed_queue_seconds_count"), server.metric("atspeed_http_responses_total", status="499")
    with server.stopped_engine(), closing(server.connect()) as connection:
        post(connection, "/v1/recommendations", {"history": ["item-1"]})
        # What comes later is answered, so this has been given to the engine.
        server.connect().close()
        connection.close()
        server.wait_for(lambda: server.metric("atspeed_http_responses_total", status="499") == gone + 1)
    assert server.recommend(history=["item-1"]).status_code == 200
    assert server.metric("atspeed_queue_seconds_count") == finished + 1


def test_the_event_loop_is_free_while_the_engine_works(server: ServerProcess):
    with ExitStack() as stack:
        with server.stopped_engine():
            waiting = stack.enter_context(server.waiting(4, history=["item-1"]))
            # None of them can be answered as long as the engine stands still.
            assert server.client.get("/version").status_code == 200
        assert [connection.getresponse().status for connection in waiting] == [200] * 4


async def test_concurrent_requests_get_the_lists_they_get_alone(server: ServerProcess, catalog: Catalog):
    histories = [[catalog.item_ids[i], catalog.item_ids[(7 * i) % 200]] for i in range(40)]
    alone = [server.recommend(history=history, k=1 + i % 12).json()["items"] for i, history in enumerate(histories)]
    async with httpx.AsyncClient(base_url=server.client.base_url, timeout=30) as client:
        posts = [client.post("/v1/recommendations", json={"history": history, "k": 1 + i % 12}) for i, history in enumerate(histories)]
        together = [response.json()["items"] for response in await asyncio.gather(*posts)]
    for one, other in zip(alone, together, strict=True):
        assert [line["item_id"] for line in one] == [line["item_id"] for line in other]


def test_metrics_are_well_formed_and_tell_what_happened(server: ServerProcess):
    server.recommend(history=["item-1", "item-2"], k=2)
    server.recommend(history=["nothing"])
    server.recommend(user_id="nobody")
    server.client.get("/no/such/path")
    text = server.client.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all(name.startswith("atspeed_") for name in families)
    samples = [sample for family in families.values() for sample in family.samples]
    latency = families["atspeed_request_latency_seconds"]
    buckets = {float(sample.labels["le"]) for sample in latency.samples if sample.name.endswith("_bucket")}
    assert (min(buckets), max(bucket for bucket in buckets if bucket != float("inf"))) == (0.001, 2.5)
    statuses = {(s.labels["route"], s.labels["status"]) for s in samples if s.name == "atspeed_http_responses_total"}
    expected = {("/v1/recommendations", "200"), ("/v1/recommendations", "422"), ("/v1/recommendations", "404"), ("unmatched", "404")}
    assert expected <= statuses
    for name in (
        "atspeed_queue_seconds_count",
        "atspeed_target_forwards_per_request_count",
        "atspeed_draft_forwards_per_request_count",
        "atspeed_forward_tokens_count",
        "atspeed_kv_slots",
        "atspeed_history_latency_seconds_count",
        "atspeed_prompt_tokens_total",
        "atspeed_engine_up",
    ):
        assert server.metric(name) > 0, name
    assert server.metric("atspeed_history_errors_total") == 0
    assert {"atspeed_running_requests", "atspeed_waiting_requests", "atspeed_kv_slots_used", "atspeed_engine_restarts"} <= set(families)


def test_operators_can_ask_what_runs(server: ServerProcess, catalog: Catalog):
    assert server.client.get("/health").json() == {"status": "alive", "engine": "ready"}
    assert server.client.get("/ready").json() == {"status": "ready", "engine": "ready"}
    version = server.client.get("/version").json()
    assert (version["model"], version["engine"], version["catalog_version"]) == ("tiny", "transformers", catalog.version)
    assert (version["precision"], version["exact"], version["normalised"]) == ("float32", True, "vocabulary")
    answer = server.client.get("/v1/catalog").json()
    identifiers = len({catalog.identifier(i) for i in range(len(catalog))})
    assert answer == {
        "version": catalog.version,
        "items": 200,
        "identifiers": identifiers,
        "identifier_length": 3,
        "tokens": len(catalog.tokens),
    }


def test_the_documentation_has_examples_and_every_error(server: ServerProcess):
    schema = server.client.get("/openapi.json").json()
    post = schema["paths"]["/v1/recommendations"]["post"]
    assert {"200", "400", "404", "422", "429", "503", "504"} <= set(post["responses"])
    assert "application/problem+json" in post["responses"]["422"]["content"]
    assert schema["components"]["schemas"]["RecommendationRequest"]["examples"]
    assert server.client.get("/docs").status_code == 200
