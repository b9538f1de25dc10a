"""`POST /v1/recommendations:batch`: every entry gets what it would have got alone."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from server.schemas.recommendations import BatchAnswer
from tests.server.server_process import ServerProcess, assert_problem


def post(server: ServerProcess, *entries: object):
    return server.client.post("/v1/recommendations:batch", json={"requests": list(entries)})


def test_entries_get_the_lists_that_they_get_alone(server: ServerProcess):
    entries = [{"history": [f"item-{i}", f"item-{i + 3}"], "k": 1 + i % 9} for i in range(100)]
    response = post(server, *entries)
    assert response.status_code == 200
    answer = BatchAnswer.model_validate_json(response.content, extra="forbid")
    assert (answer.succeeded, answer.failed) == (100, 0)
    for entry, result in list(zip(entries, answer.results, strict=True))[::9]:
        alone = server.recommend(**entry).json()["items"]
        assert result.recommendation is not None
        assert [line.item_id for line in result.recommendation.items] == [line["item_id"] for line in alone]


def test_an_entry_that_goes_wrong_costs_the_others_nothing(server: ServerProcess):
    entries = [
        {"history": ["item-1"], "k": 2},
        {"history": ["item-9999"]},
        {"user_id": "nobody"},
        {"history": ["item-1"], "k": 0},
        "item-1",
        {"history": ["item-1"], "beams": 2},
        {"history": ["item-1"], "timeout_ms": 1, "k": 100, "beam_width": 256},
        {"history": ["item-2"], "k": 3},
    ]
    answer = post(server, *entries).json()
    statuses = [result["status"] for result in answer["results"]]
    # An idle engine tries what is hopeless.
    assert statuses.pop(6) in (429, 504)
    assert statuses == [200, 422, 404, 422, 422, 422, 200]
    assert (answer["succeeded"], answer["failed"]) == (2, 6)
    details = [result["problem"]["detail"] for result in answer["results"] if "problem" in result]
    assert details[:5] == [
        "The catalog has no item 'item-9999', which history names.",
        "There is no user 'nobody': no events are stored for that id.",
        "k must be greater than or equal to 1, got 0.",
        "The entry must be a JSON object.",
        "There is no field 'beams'.",
    ]
    assert answer["results"][6]["problem"]["retry_after_seconds"] >= 1
    assert BatchAnswer.model_validate(answer, extra="forbid")


def test_a_batch_has_a_size(server: ServerProcess):
    assert_problem(post(server), 422, "requests must have at least 1 item, not 0.")
    too_many = [{"history": ["item-1"]}] * 257
    assert_problem(post(server, *too_many), 422, "requests must have at most 256 items, not 257.")


def test_a_full_batch_does_not_keep_others_waiting(server: ServerProcess):
    entries = [{"history": [f"item-{i % 190}"] * 5, "k": 10} for i in range(256)]
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(post, server, *entries)
        slowest = 0.0
        while not batch.done():
            started = time.monotonic()
            assert server.client.get("/version").status_code == 200
            slowest = max(slowest, time.monotonic() - started)
        assert batch.result().json()["succeeded"] == 256
    assert slowest < 0.25


async def test_a_batch_whose_client_hangs_up_frees_the_engine(server: ServerProcess):
    engine = server.engine
    engine.suspend()
    try:
        _, writer = await asyncio.open_connection(server.client.base_url.host, server.client.base_url.port)
        body = b'{"requests": [' + b",".join([b'{"history": ["item-1"]}'] * 50) + b"]}"
        head = "POST /v1/recommendations:batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await asyncio.sleep(0.5)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.3)
    finally:
        engine.resume()
    server.wait_for(lambda: server.metric("atspeed_running_requests") == server.metric("atspeed_waiting_requests") == 0, 5)
    assert server.recommend(history=["item-1"]).status_code == 200
