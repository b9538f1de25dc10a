"""`POST /v1/scores` on a real server: what the model's own forward pass says of each item, whatever else is named and however it ends."""

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from drafting.catalog.catalog import Catalog
from server.errors import ScoresNotFinite
from server.schemas.scores import MAX_SCORED, ScoreAnswer
from server.try_again import EngineUnavailable, TooLate
from tests.scoring import forward_scores
from tests.server.http.test_app import CATALOG, Bench
from tests.server.server_process import ServerProcess, assert_problem, post
from verification.recommender import Recommender

HISTORY = ["item-3", "item-14", "item-15"]


def asked(server: ServerProcess, **body: Any) -> httpx.Response:
    return server.client.post("/v1/scores", json=body)


def scored(server: ServerProcess, **body: Any) -> ScoreAnswer:
    response = asked(server, **body)
    assert response.status_code == 200, response.text
    return ScoreAnswer.model_validate_json(response.content, extra="forbid")


def test_scores_are_those_of_the_forward_pass_and_of_lists(server: ServerProcess, catalog: Catalog, model_dir: Path):
    rng = np.random.default_rng(0)
    named = rng.permutation(len(catalog)).tolist()
    counted = server.metric("atspeed_scored_items_total")
    answer = scored(server, history=HISTORY, items=[catalog.item_ids[item] for item in named])
    assert [item.item_id for item in answer.items] == [catalog.item_ids[item] for item in named]
    identifiers = catalog.token_ids(AutoTokenizer.from_pretrained(model_dir).get_vocab())
    with closing(Recommender.load(model_dir, catalog, kv_memory_gib=0.01)) as recommender:
        prompt = recommender.prompts.build(catalog.indices_of(HISTORY))
    expected = forward_scores(AutoModelForCausalLM.from_pretrained(model_dir).eval(), prompt, identifiers[named])
    np.testing.assert_allclose([item.score for item in answer.items], expected, atol=1e-4)
    listed = server.recommend(history=HISTORY, k=30, beam_width=200).json()["items"]
    by_name = {item.item_id: item for item in answer.items}
    for line in listed:
        assert by_name[line["item_id"]].score == pytest.approx(line["score"], abs=1e-4)
        # All items of the catalog were named, so ranks are those of the whole catalog.
        assert by_name[line["item_id"]].rank == line["rank"]
    assert answer.usage.candidates == len(catalog)
    assert server.metric("atspeed_scored_items_total") == counted + len(catalog)


def test_scores_are_normalised_as_a_request_says(server: ServerProcess):
    """As a list's are; the names of the ways are checked."""
    history, some = HISTORY, [f"item-{number}" for number in range(40)]
    plain = [item.score for item in scored(server, history=history, items=some).items]
    for over in ("vocabulary", "level", "children"):
        listed = server.recommend(history=history, k=30, beam_width=200, normalise=over).json()["items"]
        answer = scored(server, history=history, items=[line["item_id"] for line in listed], normalise=over)
        assert [item.score for item in answer.items] == pytest.approx([line["score"] for line in listed], abs=1e-4)
        again = [item.score for item in scored(server, history=history, items=some, normalise=over).items]
        assert (again == pytest.approx(plain, abs=1e-4)) is (over == "vocabulary")
    assert asked(server, history=history, items=some, normalise="all").status_code == 422


def test_items_that_share_an_identifier_share_score_and_rank(server: ServerProcess, catalog: Catalog):
    by_identifier: dict[tuple[str, ...], list[str]] = {}
    for index, name in enumerate(catalog.item_ids):
        by_identifier.setdefault(tuple(catalog.identifier(index)), []).append(name)
    shared = next(names for names in by_identifier.values() if len(names) > 1)
    others = [names[0] for names in by_identifier.values() if names is not shared][:5]
    answer = scored(server, history=HISTORY, items=[*shared, *others, shared[0]])
    told = {item.item_id: (item.score, item.rank) for item in answer.items}
    assert len(answer.items) == len(shared) + 6
    assert len({told[name] for name in shared}) == 1
    assert sorted({rank for _, rank in told.values()}) == [1, 2, 3, 4, 5, 6]


def test_items_that_the_catalog_does_not_have_are_passed_over_or_refused(server: ServerProcess):
    body = {"history": HISTORY, "items": ["item-1", "gone", "item-2"]}
    answer = scored(server, **body)
    assert [item.item_id for item in answer.items] == ["item-1", "item-2"]
    assert answer.note == "The catalog has no item 'gone', which items names: it is passed over."
    assert_problem(asked(server, **body, strict_ids=True), 422, "The catalog has no item 'gone', which items names.")
    strict = {"history": ["item-1", "gone"], "items": ["item-1"], "strict_ids": True}
    assert_problem(asked(server, **strict), 422, "The catalog has no item 'gone', which history names.")
    assert_problem(
        asked(server, history=HISTORY, items=["gone", "away"]), 422, "The catalog has none of the 2 items that items names, such as 'gone'."
    )


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"history": HISTORY}, "The field 'items' is missing."),
        ({"history": HISTORY, "items": []}, "items must have at least 1 item, not 0."),
        ({"history": HISTORY, "items": ["item-1"] * (MAX_SCORED + 1)}, "items must have at most 10000 items, not 10001."),
        ({"items": ["item-1"]}, "Give a user_id, or a history of item ids."),
        ({"items": ["item-1"], "user_id": "u", "history": HISTORY}, "Give either user_id or history, not both."),
        ({"items": ["item-1"], "history": HISTORY, "k": 3}, "There is no field 'k'."),
    ],
)
def test_bodies_that_are_refused(server: ServerProcess, body: dict[str, Any], sentence: str):
    assert_problem(asked(server, **body), 422, sentence)


def test_users_are_read_and_their_prompts_cached(server: ServerProcess):
    assert_problem(asked(server, user_id="nobody", items=["item-1"]), 404, "There is no user 'nobody': no events are stored for that id.")
    server.client.post("/v1/users/scored/events", json={"events": [{"item_id": name} for name in HISTORY]}).raise_for_status()
    first, second = (scored(server, user_id="scored", items=["item-1", "item-9"]) for _ in range(2))
    brought = scored(server, history=HISTORY, items=["item-1", "item-9"])
    assert second.usage.cached_tokens == second.usage.prompt_tokens - 1 > first.usage.cached_tokens
    for one, other, third in zip(first.items, second.items, brought.items, strict=True):
        assert one.rank == other.rank == third.rank
        assert other.score == pytest.approx(one.score, abs=1e-5)
        assert third.score == pytest.approx(one.score, abs=1e-5)


def test_many_scores_and_lists_side_by_side(server: ServerProcess, catalog: Catalog):
    """Ten thousand items, most of them more than once, while lists are asked for."""
    names = [catalog.item_ids[number % len(catalog)] for number in range(MAX_SCORED)]
    answers: list[ScoreAnswer] = []
    working = threading.Thread(target=lambda: answers.append(scored(server, history=HISTORY, items=names)))
    working.start()
    while working.is_alive():
        assert server.recommend(history=HISTORY, k=3).status_code == 200
    working.join()
    assert len(answers[0].items) == MAX_SCORED
    assert len({(item.item_id, item.score, item.rank) for item in answers[0].items}) == len(catalog)


def test_what_takes_too_long_or_is_given_up_leaves_nothing_behind(server: ServerProcess):
    body = {"history": HISTORY, "items": ["item-1", "item-2"]}
    with server.stopped_engine():
        assert asked(server, **body, timeout_ms=60).status_code in (429, 504)
        with closing(server.connect()) as connection:
            post(connection, "/v1/scores", body)
            server.connect().close()
    server.wait_for(lambda: server.metric("atspeed_running_requests") == server.metric("atspeed_kv_slots_used") == 0)
    assert scored(server, **body).items


@pytest.mark.parametrize(
    ("error", "status"),
    [(EngineUnavailable("It is away.", 7), 503), (TooLate("It is late.", 3), 429), (TimeoutError(), 504), (ScoresNotFinite(), 500)],
)
async def test_what_the_engine_says_becomes_a_problem(error: Exception, status: int):
    bench = Bench()
    bench.engine.error = error
    response = await bench.client.post("/v1/scores", json={"history": ["item-1"], "items": ["item-3", "item-5", "item-3"]})
    assert response.status_code == response.json()["status"] == status
    (submit,) = bench.engine.asked
    assert submit.scored is not None
    assert np.frombuffer(submit.scored.items, np.int32).tolist() == CATALOG.indices_of(["item-3", "item-5", "item-3"]).tolist()
    prefixes = {CATALOG.identifier(item)[:depth] for item in (3, 5) for depth in range(1, CATALOG.identifier_length)}
    assert submit.scored.prefixes == len(prefixes)
    assert bench.metrics.registry.get_sample_value("atspeed_score_requests_total") == 0


async def test_a_server_that_shuts_down_takes_no_requests():
    bench = Bench()
    bench.services.drain.begin()
    response = await bench.client.post("/v1/scores", json={"history": ["item-1"], "items": ["item-3"]})
    assert_problem(response, 503, "The server is shutting down.")
