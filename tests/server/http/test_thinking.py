"""Texts before lists over HTTP: what comes back, what others notice of it, and where nothing of a text may stand."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from drafting.beam.rule import SERVED_BEAM_WIDTH
from drafting.catalog.catalog import Catalog
from drafting.prompts.template import PromptTemplate
from drafting.prompts.thinking import ThinkTemplate
from server.schemas.recommendations import RecommendationAnswer
from tests.models import save_random_model
from tests.server.forked_server import ForkedServer
from tests.server.server_process import ServerProcess, assert_problem
from verification.recommender import Recommender

HISTORY = ["item-3", "item-14"]
MOST = 150
LATE = "The answer was not ready within the request's timeout."


@pytest.fixture(scope="module")
def writer(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_random_model(tmp_path_factory.mktemp("models") / "writer", catalog, hidden=32, layers=1, seed=2)
    PromptTemplate(max_items=5, think=ThinkTemplate("<c_7>", MOST, "<b_1>", {"template": "{history}<b_2>"})).save(folder)
    return folder


@pytest.fixture(scope="module")
def thinking(writer: Path, catalog_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    flags = ("--target", str(writer), "--catalog", str(catalog_file), "--histories", "memory://", "--timeout-ms", "20000", "--plan", "auto")
    with ForkedServer(tmp_path_factory.mktemp("thinking"), *flags, "--log-level", "debug") as server:
        yield server.wait_until_ready()


def answer_to(server: ServerProcess, **body: Any) -> RecommendationAnswer:
    response = server.recommend(history=HISTORY, **body)
    assert response.status_code == 200, response.text
    return RecommendationAnswer.model_validate_json(response.content, extra="forbid")


def ids(answer: RecommendationAnswer) -> list[str]:
    return [line.item_id for line in answer.items]


def test_text_and_list_are_the_engines(thinking: ServerProcess, writer: Path, catalog: Catalog, catalog_file: Path) -> None:
    """With and without the text in the answer; what it holds stands in no log."""
    recommender = Recommender.load(writer, catalog, threads=1, kv_memory_gib=0.01)
    before = thinking.metric("atspeed_thought_tokens_total")
    written = 0
    for most in (3, 20):
        (expected,) = recommender.recommend([[3, 14]], 4, SERVED_BEAM_WIDTH, think=most)
        assert expected.thought is not None
        told = answer_to(thinking, k=4, think={"max_tokens": most, "return_text": True})
        kept = answer_to(thinking, k=4, think={"max_tokens": most})
        assert told.thought == recommender.text(expected.thought) != ""
        assert kept.thought is None
        for answer in (told, kept):
            assert [(line.item_id, line.rank) for line in answer.items] == [(f"item-{item.item}", item.rank) for item in expected.items]
            assert answer.usage.thought_tokens == expected.usage.thought_tokens
            assert answer.usage.prompt_tokens == 1 + 2 * 3 + 1
            written += expected.usage.thought_tokens
        if most == 20:
            assert told.thought not in thinking.log
    assert thinking.metric("atspeed_thought_tokens_total") - before == written
    plain = answer_to(thinking, k=4)
    assert (plain.thought, plain.usage.thought_tokens, plain.usage.prompt_tokens) == (None, None, 1 + 2 * 3)
    recommender.close()


def test_a_sampled_list_has_a_sampled_text_of_its_seed(thinking: ServerProcess) -> None:
    think = {"max_tokens": 20, "return_text": True}
    drawn = [answer_to(thinking, verification="gumbel", seed=seed, think=think) for seed in (1, 2, 1)]
    assert drawn[0].thought == drawn[2].thought != drawn[1].thought
    assert ids(drawn[0]) == ids(drawn[2])


def test_others_go_on_and_a_text_that_takes_too_long_leaves_nothing(thinking: ServerProcess) -> None:
    think = {"max_tokens": MOST, "return_text": True}
    with ThreadPoolExecutor(4) as threads:
        long = [threads.submit(answer_to, thinking, verification="gumbel", seed=seed, think=think) for seed in range(3)]
        quick = [answer_to(thinking) for _ in range(5)]
    assert all(answer.usage.thought_tokens is None for answer in quick)
    texts = [each.result() for each in long]
    assert all(text.usage.thought_tokens for text in texts)
    longest = max(texts, key=lambda text: text.usage.thought_tokens or 0)
    assert_problem(thinking.recommend(history=HISTORY, timeout_ms=1, verification="gumbel", seed=longest.seed, think=think), 504, LATE)
    assert ids(answer_to(thinking)) == ids(quick[0])
    assert thinking.metric("atspeed_kv_slots_used") == 0


def test_entries_of_a_batch_think_alone(thinking: ServerProcess) -> None:
    entries = [
        {"history": HISTORY},
        {"history": HISTORY, "think": {"max_tokens": 5}},
        {"history": HISTORY, "think": {"max_tokens": MOST + 1}},
    ]
    results = thinking.client.post("/v1/recommendations:batch", json={"requests": entries}).json()["results"]
    assert [result["status"] for result in results] == [200, 200, 422]
    assert results[1]["recommendation"]["usage"]["thought_tokens"] <= 5


def test_what_the_model_can_not_write_is_a_sentence(thinking: ServerProcess, server: ServerProcess) -> None:
    sentence = "The model can't think before a list: its prompt.json has no field think."
    assert_problem(server.recommend(history=HISTORY, think={"max_tokens": 5}), 422, sentence)
    sentence = f"think.max_tokens must be at most {MOST}, as the model's prompt.json says, got {MOST + 1}."
    assert_problem(thinking.recommend(history=HISTORY, think={"max_tokens": MOST + 1}), 422, sentence)
    for wrong in ({}, {"max_tokens": 0}, {"max_tokens": 2.5}, {"max_tokens": 5, "text": "x"}, 5, True):
        refused = thinking.recommend(history=HISTORY, think=wrong)
        assert refused.status_code == 422
        assert "think" in refused.json()["detail"]
