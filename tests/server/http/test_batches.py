"""`POST /v1/recommendations:batch`: every entry gets what it would have got alone."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from server.schemas.batches import BatchAnswer
from tests.server.server_process import ServerProcess, assert_problem
from tests.server.server_process import post as send


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
    refused = server.metric("atspeed_refused_requests_total", reason="deadline")
    with ThreadPoolExecutor(1) as pool:
        # The engine has the first entry when the hopeless one comes.
        with server.stopped_engine():
            batch = pool.submit(post, server, *entries)
            server.wait_for(lambda: server.metric("atspeed_refused_requests_total", reason="deadline") == refused + 1)
        answer = batch.result().json()
    assert [result["status"] for result in answer["results"]] == [200, 422, 404, 422, 422, 422, 429, 200]
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


def test_an_idle_engine_tries_an_entry_that_is_hopeless(server: ServerProcess):
    with server.stopped_engine():
        answer = post(server, {"history": ["item-1"], "timeout_ms": 300, "k": 100, "beam_width": 256}, {"user_id": "nobody"}).json()
    assert [result["status"] for result in answer["results"]] == [504, 404]
    assert answer["results"][0]["problem"]["detail"] == "The answer was not ready within the request's timeout."


def test_a_batch_has_a_size(server: ServerProcess):
    assert_problem(post(server), 422, "requests must have at least 1 item, not 0.")
    too_many = [{"history": ["item-1"]}] * 257
    assert_problem(post(server, *too_many), 422, "requests must have at most 256 items, not 257.")


def test_a_batch_whose_client_hangs_up_frees_the_engine(server: ServerProcess):
    finished, gone = server.metric("atspeed_queue_seconds_count"), server.metric("atspeed_http_responses_total", status="499")
    with server.stopped_engine(), closing(server.connect()) as connection:
        send(connection, "/v1/recommendations:batch", {"requests": [{"history": ["item-1"]}] * 50})
        # What comes later is answered, so entries have been given to the engine.
        server.connect().close()
        connection.close()
        server.wait_for(lambda: server.metric("atspeed_http_responses_total", status="499") == gone + 1)
    server.wait_for(lambda: server.metric("atspeed_running_requests") == server.metric("atspeed_waiting_requests") == 0)
    assert server.recommend(history=["item-1"]).status_code == 200
    assert server.metric("atspeed_queue_seconds_count") == finished + 1
