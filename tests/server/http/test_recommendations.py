"""`POST /v1/recommendations` on a real server: what comes back, and one clear sentence for everything that can't."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from drafting.beam.rule import Verification
from drafting.catalog.catalog import Catalog
from server.schemas.recommendations import RecommendationAnswer
from tests.server.server_process import ServerProcess, alike, assert_problem
from verification.recommender import Recommender

HISTORY = ["item-3", "item-14", "item-15"]
TOO_WIDE = "There is memory for beams of up to 256, not of 257: ask for a smaller k and beam_width, or raise --max-beam-width."


def test_the_answer_has_the_documented_shape(server: ServerProcess, catalog: Catalog):
    response = server.recommend(history=HISTORY, k=4)
    assert response.status_code == 200
    answer = RecommendationAnswer.model_validate_json(response.content, extra="forbid")
    assert answer.model == "tiny"
    assert answer.catalog_version == catalog.version
    assert (answer.precision, answer.exact) == ("float32", True)
    assert answer.id.startswith("rec-")
    assert answer.note is None
    assert answer.verification is Verification.STRICT
    assert [line.rank for line in answer.items] == sorted(line.rank for line in answer.items)
    assert {line.rank for line in answer.items} == {1, 2, 3, 4}
    for line in answer.items:
        index = catalog.index_of(line.item_id)
        assert index is not None
        assert tuple(line.identifier) == catalog.identifier(index)
        assert line.title == catalog.title(index)
    assert (answer.usage.prompt_tokens, answer.usage.target_forwards + answer.usage.accepted_steps) == (1 + 3 * 3, 3)
    timing = answer.timing_ms
    assert timing.total >= timing.queue + timing.engine > 0


def test_the_list_is_the_engines(server: ServerProcess, catalog: Catalog, catalog_file: Path, model_dir: Path):
    recommender = Recommender.load(model_dir, catalog, threads=1, kv_memory_gib=0.01)
    (expected,) = recommender.recommend([[3, 14, 15]], k=5, beam_width=9, excluded_items=[[7, 8]])
    recommender.close()
    items = server.recommend(history=HISTORY, k=5, beam_width=9, exclude=["item-7", "item-8"]).json()["items"]
    assert [(catalog.index_of(line["item_id"]), line["rank"]) for line in items] == [(item.item, item.rank) for item in expected.items]
    assert [line["score"] for line in items] == pytest.approx([item.score for item in expected.items], abs=1e-4)


def test_levels_of_widths_of_their_own_are_the_engines(server: ServerProcess, catalog: Catalog, model_dir: Path):
    recommender = Recommender.load(model_dir, catalog, threads=1, kv_memory_gib=0.01)
    (expected,) = recommender.recommend([[3, 14, 15]], k=5, beam_widths=[2, 9])
    recommender.close()
    items = server.recommend(history=HISTORY, k=5, beam_widths=[2, 9]).json()["items"]
    assert [(catalog.index_of(line["item_id"]), line["rank"]) for line in items] == [(item.item, item.rank) for item in expected.items]


def test_the_format_ids_leaves_ids_scores_and_ranks_of_the_same_list(server: ServerProcess):
    asked = {"history": HISTORY, "k": 200, "beam_width": 256}
    full, brief = (server.recommend(**asked, format=name).json()["items"] for name in ("full", "ids"))
    assert len(brief) >= 200
    assert brief == alike([{name: line[name] for name in ("item_id", "score", "rank")} for line in full])


def test_ten_identifiers_are_the_default(server: ServerProcess):
    items = server.recommend(history=HISTORY).json()["items"]
    assert {line["rank"] for line in items} == set(range(1, 11))


def test_items_that_share_an_identifier_share_a_rank(server: ServerProcess, catalog: Catalog):
    items = server.recommend(history=HISTORY, k=100, beam_width=100).json()["items"]
    assert len(items) > 100
    assert len({tuple(line["identifier"]) for line in items}) == len({line["rank"] for line in items}) == 100


def test_exclusion_still_leaves_k(server: ServerProcess, catalog: Catalog):
    best = [line["item_id"] for line in server.recommend(history=HISTORY, k=10).json()["items"]]
    items = server.recommend(history=HISTORY, k=10, exclude=best).json()["items"]
    assert not {line["item_id"] for line in items} & set(best)
    assert len({line["rank"] for line in items}) == 10


def test_exclude_history_covers_items_before_the_window(server: ServerProcess, catalog: Catalog):
    history = list(catalog.item_ids[:150])
    answer = server.recommend(history=history, k=20, beam_width=64, exclude_history=True).json()
    assert answer["items"]
    assert not {line["item_id"] for line in answer["items"]} & set(history)


def test_a_history_longer_than_the_window_is_noted(server: ServerProcess, catalog: Catalog):
    history = list(catalog.item_ids[:12])
    answer = server.recommend(history=history, k=3).json()
    assert answer["note"] == "The model reads at most the newest 5 of the 12 items in the history."
    read, rest = divmod(answer["usage"]["prompt_tokens"] - 1, catalog.identifier_length)
    assert read in (3, 4, 5)
    assert not rest
    newest = server.recommend(history=history[-read:], k=3).json()
    assert answer["items"] == alike(newest["items"])
    assert "note" not in newest


def test_fewer_eligible_identifiers_than_k_is_noted(server: ServerProcess, catalog: Catalog):
    kept = [catalog.item_ids[0], next(item for i, item in enumerate(catalog.item_ids) if catalog.identifier(i) != catalog.identifier(0))]
    answer = server.recommend(history=HISTORY, k=10, exclude=[item for item in catalog.item_ids if item not in kept]).json()
    assert {line["item_id"] for line in answer["items"]} == set(kept)
    assert answer["note"] == "Only 2 identifiers of the catalog were eligible, fewer than the 10 asked for."


def test_with_everything_excluded_the_list_is_empty(server: ServerProcess, catalog: Catalog):
    answer = server.recommend(history=HISTORY, k=1, exclude=list(catalog.item_ids)).json()
    assert answer["items"] == []
    assert answer["note"] == "Only 0 identifiers of the catalog were eligible, fewer than the 1 asked for."


def test_items_that_the_catalog_does_not_have_are_passed_over_and_told(server: ServerProcess):
    answer = server.recommend(history=["gone", HISTORY[0], "lost", *HISTORY[1:]], exclude=["never", "item-3"], k=5).json()
    assert answer["note"] == (
        "The catalog does not have 2 items that history names, such as 'gone': they are passed over. "
        "The catalog has no item 'never', which exclude names: it is passed over."
    )
    known = server.recommend(history=HISTORY, exclude=["item-3"], k=5, strict_ids=True).json()
    assert answer["items"] == alike(known["items"])
    assert "note" not in known


BAD_BODIES = {
    "unknown item in the history": (
        {"history": ["item-1", "item-9999"], "strict_ids": True},
        "The catalog has no item 'item-9999', which history names.",
    ),
    "unknown item in exclude": (
        {"history": ["item-1"], "exclude": ["item-9999"], "strict_ids": True},
        "The catalog has no item 'item-9999', which exclude names.",
    ),
    "only unknown items in the history": (
        {"history": ["item-9998", "item-9999"], "exclude": ["item-9999"]},
        "The catalog has none of the 2 items that history names, such as 'item-9998'.",
    ),
    "k over the limit": ({"history": ["item-1"], "k": 2001}, "k must be less than or equal to 2000, got 2001."),
    "k of nothing": ({"history": ["item-1"], "k": 0}, "k must be greater than or equal to 1, got 0."),
    "k as text": ({"history": ["item-1"], "k": "10"}, "k must be a valid integer, got 10."),
    "beam over the limit": ({"history": ["item-1"], "beam_width": 5001}, "beam_width must be less than or equal to 5000, got 5001."),
    "beam over the server's": ({"history": ["item-1"], "beam_width": 257}, TOO_WIDE),
    "k over the server's beams": ({"history": ["item-1"], "k": 257}, TOO_WIDE),
    "a level over the server's beams": ({"history": ["item-1"], "beam_widths": [257, 10]}, TOO_WIDE),
    "beams of two kinds": (
        {"history": ["item-1"], "beam_width": 9, "beam_widths": [9, 10]},
        "Give either beam_width or beam_widths, not both.",
    ),
    "more levels than there are": (
        {"history": ["item-1"], "beam_widths": [9, 10, 11]},
        "beam_widths are those of each level but the last, whose width is k: identifiers of 3 tokens have 2, and 3 are given.",
    ),
    "a last level under k": (
        {"history": ["item-1"], "beam_widths": [20, 9]},
        "The last of beam_widths must be at least k, got [20, 9] and k = 10.",
    ),
    "a sample of narrow levels": (
        {"history": ["item-1"], "verification": "gumbel", "beam_widths": [9, 20]},
        "Each of the beam_widths of a gumbel list must be at least k, or it would be no exact sample, got [9, 20] and k = 10.",
    ),
    "fields of ids": (
        {"history": ["item-1"], "format": "ids", "fields": ["title"]},
        "The format ids has no fields: leave one of them out.",
    ),
    "beam under k": (
        {"history": ["item-1"], "k": 10, "beam_width": 5},
        "beam_width must be at least k, got beam_width = 5 and k = 10.",
    ),
    "empty history": ({"history": []}, "The history is empty: recommendations need at least one item."),
    "endless history": ({"history": ["item-1"] * 10_001}, "history must have at most 10000 items, not 10001."),
    "history as text": ({"history": "item-1"}, "history must be a valid list, got item-1."),
    "item as number": ({"history": ["item-1", 2]}, "history[1] must be a valid string, got 2."),
    "both": ({"user_id": "u", "history": ["item-1"]}, "Give either user_id or history, not both."),
    "neither": ({"k": 3}, "Give a user_id, or a history of item ids."),
    "a context without a history": ({"context": {"query": "war"}}, "The history is empty: a prompt needs at least one item."),
    "behaviours without a history": ({"behaviours": {"buy": ["item-1"]}}, "The history is empty: a prompt needs at least one item."),
    "unknown field": ({"history": ["item-1"], "beams": 3}, "There is no field 'beams'."),
    "timeout of nothing": ({"history": ["item-1"], "timeout_ms": 0}, "timeout_ms must be greater than or equal to 1, got 0."),
    "an unknown verification": (
        {"history": ["item-1"], "verification": "hopeful"},
        "verification must be 'strict', 'gumbel' or 'relaxed', got hopeful.",
    ),
    "a verification as number": (
        {"history": ["item-1"], "verification": 1},
        "verification must be 'strict', 'gumbel' or 'relaxed', got 1.",
    ),
    "a seed for a strict list": (
        {"history": ["item-1"], "verification": "strict", "seed": 1},
        "A seed is for lists that are sampled: leave it out, or choose gumbel or relaxed verification.",
    ),
    "a temperature for what is strict by default": (
        {"history": ["item-1"], "temperature": 1.0},
        "A temperature is for lists that are sampled: leave it out, or choose gumbel or relaxed verification.",
    ),
    "a negative seed": ({"history": ["item-1"], "verification": "gumbel", "seed": -1}, "seed must be greater than or equal to 0, got -1."),
    "a seed that JavaScript would change": (
        {"history": ["item-1"], "verification": "gumbel", "seed": 2**53},
        "seed must be less than or equal to 9007199254740991, got 9007199254740992.",
    ),
    "a seed as text": ({"history": ["item-1"], "verification": "gumbel", "seed": "7"}, "seed must be a valid integer, got 7."),
    "half a seed": ({"history": ["item-1"], "verification": "gumbel", "seed": 0.5}, "seed must be a valid integer, got 0.5."),
    "too cold": (
        {"history": ["item-1"], "verification": "gumbel", "temperature": 0},
        "temperature must be greater than or equal to 0.01, got 0.",
    ),
    "too hot": (
        {"history": ["item-1"], "verification": "relaxed", "temperature": 101},
        "temperature must be less than or equal to 100, got 101.",
    ),
    "a list": (["item-1"], "The body must be a JSON object."),
    "null": (None, "The request has no body: send a JSON object."),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_a_body_that_is_wrong_gets_one_sentence(server: ServerProcess, case: str):
    body, sentence = BAD_BODIES[case]
    response: httpx.Response = server.client.post("/v1/recommendations", json=body)
    assert_problem(response, 422, sentence)


def test_a_body_that_is_not_declared_as_json_gets_one_sentence(server: ServerProcess):
    response = server.client.post("/v1/recommendations", content=b'{"history": ["item-1"]}')
    assert_problem(response, 415, "Send the body as JSON, with the header Content-Type: application/json.")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_gets_one_sentence(server: ServerProcess, chunked: bool):
    data = b"x" * (3 * 1024 * 1024)
    content: Any = iter([data]) if chunked else data
    response = server.client.post("/v1/recommendations", content=content, headers={"Content-Type": "application/json"})
    assert_problem(response, 413, "The body is larger than the 2048 KiB that this server reads.")


def test_unknown_paths_and_methods_get_one_sentence(server: ServerProcess):
    assert_problem(server.client.get("/v2/x"), 404, "There is nothing at '/v2/x'; see /docs for what there is.")
    assert_problem(server.client.get("/v1/recommendations"), 405, "GET is not possible at '/v1/recommendations'; see /docs for what is.")


def test_the_request_id_is_echoed_or_made(server: ServerProcess):
    assert server.client.get("/version", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert len(server.client.get("/version").headers["x-request-id"]) == 32
    assert len(server.client.get("/version", headers={"X-Request-Id": "x" * 500}).headers["x-request-id"]) == 32
    assert server.client.get("/nothing", headers={"X-Request-Id": "abc-2"}).headers["x-request-id"] == "abc-2"
