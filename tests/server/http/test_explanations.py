"""`POST /v1/recommendations:explain` on a real server: the tree equals the list, the catalog and what the engine says of it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from drafting.catalog.catalog import Catalog
from server.schemas.explanations import ExplainedAnswer, ExplainedLevelAnswer
from tests.server.server_process import ServerProcess, assert_problem

HISTORY = ["item-3", "item-14", "item-15"]


def explained(server: ServerProcess, **body: Any) -> ExplainedAnswer:
    """The answer, which has the documented shape and whose tree is the catalog's."""
    response = server.client.post("/v1/recommendations:explain", json={"history": HISTORY} | body)
    assert response.status_code == 200, response.text
    return ExplainedAnswer.model_validate_json(response.content, extra="forbid")


def check_tree(answer: ExplainedAnswer, catalog: Catalog) -> None:
    """The tree is the catalog's, its last level is the list, and its counts are those of the usage."""
    levels = answer.explanation.levels
    check_nodes(answer, levels, catalog)
    found = [(item.item_id, node.log_prob, node.rank) for node in levels[-1].nodes if node.in_beam for item in node.items or ()]
    assert found == [(item.item_id, item.score, item.rank) for item in answer.items]
    assert sum(level.drafted for level in levels) == answer.usage.drafted_nodes
    assert sum(level.accepted for level in levels) == answer.usage.accepted_steps
    assert levels[-1].forward == answer.usage.target_forwards


def check_nodes(answer: ExplainedAnswer, levels: list[ExplainedLevelAnswer], catalog: Catalog) -> dict[str, float]:
    """Parents, tokens and items are the catalog's, and paths lead to the list's identifiers; items of the last level and their scores."""
    tokens: dict[int, tuple[str, ...]] = {0: ()}
    for depth, level in enumerate(levels, start=1):
        assert level.depth == depth
        beam = [node for node in level.nodes if node.in_beam]
        assert level.nodes[: len(beam)] == beam
        assert [node.rank for node in beam] == list(range(1, len(beam) + 1))
        assert len(level.nodes) <= len(beam) + answer.explanation.others + sum(node.candidate is True for node in level.nodes)
        for node in level.nodes:
            tokens[node.node] = (*tokens[node.parent], node.token)
            below = [item for item in range(len(catalog)) if catalog.identifier(item)[:depth] == tokens[node.node]]
            assert node.items_below == len(below) > 0
            assert node.accepted == (node.drafted and node.in_beam)
    first = {item.rank: item for item in reversed(answer.items)}
    leaves = {tokens[node.node]: node.node for node in levels[-1].nodes}
    for rank, path in enumerate(answer.explanation.paths, start=1):
        if (leaf := leaves.get(tuple(first[rank].identifier))) is not None:
            assert path[-1] == leaf
            assert [tokens[node] for node in path] == [tokens[leaf][:depth] for depth in range(1, len(path) + 1)]
    assert len(answer.explanation.paths) == len(first)
    return {item.item_id: node.log_prob for node in levels[-1].nodes for item in node.items or ()}


@pytest.mark.parametrize(
    "extra",
    [{}, {"others": 0}, {"others": 100, "exclude": ["item-7"], "exclude_history": True}, {"verification": "gumbel", "seed": 5}],
)
def test_the_last_level_is_the_list(server: ServerProcess, catalog: Catalog, extra: dict[str, Any]):
    counted = server.metric("atspeed_explained_lists_total")
    answer = explained(server, k=6, beam_width=8, **extra)
    check_tree(answer, catalog)
    asked = {name: value for name, value in extra.items() if name != "others"}
    plain = server.recommend(history=HISTORY, k=6, beam_width=8, **asked).json()
    assert [(line.item_id, line.rank) for line in answer.items] == [(line["item_id"], line["rank"]) for line in plain["items"]]
    assert "explanation" not in plain
    assert [len([node for node in level.nodes if node.in_beam]) for level in answer.explanation.levels] == [8, 8, 6]
    assert server.metric("atspeed_explained_lists_total") == counted + 1


def test_a_stored_user_whose_prompt_is_cached(server: ServerProcess, catalog: Catalog):
    server.client.post("/v1/users/explained/events", json={"events": [{"item_id": name} for name in HISTORY]})
    fresh, cached = (explained(server, user_id="explained", history=None, k=3) for _ in range(2))
    check_tree(cached, catalog)
    assert cached.usage.cached_tokens > fresh.usage.cached_tokens
    assert cached.explanation.paths == fresh.explanation.paths
    server.client.delete("/v1/users/explained")


def test_items_that_may_not_be_returned_are_not_in_the_tree(server: ServerProcess, catalog: Catalog):
    allowed = [f"item-{i}" for i in range(0, 200, 40)]
    assert server.client.put("/v1/catalog/filters/few", json={"items": allowed}).is_success
    answer = explained(server, k=10, filter="few")
    server.client.delete("/v1/catalog/filters/few")
    assert {item.item_id for item in answer.items} == set(allowed)
    assert not answer.explanation.truncated
    leaves = {catalog.identifier(number) for number in range(0, 200, 40)}
    assert len(answer.explanation.levels[-1].nodes) == answer.explanation.levels[-1].considered == len(leaves)


def test_only_so_many_at_a_time(server: ServerProcess, catalog: Catalog):
    """What stands in the queue of a stopped engine takes a place; the others are told to come again, and lists are given meanwhile."""
    refused = server.metric("atspeed_refused_requests_total", reason="explanations")
    with ThreadPoolExecutor(3) as pool, server.stopped_engine():
        asked = [pool.submit(server.client.post, "/v1/recommendations:explain", json={"history": HISTORY}) for _ in range(3)]
        server.wait_for(lambda: server.metric("atspeed_refused_requests_total", reason="explanations") == refused + 1)
    statuses = sorted(answer.result().status_code for answer in asked)
    assert statuses == [200, 200, 429]
    (busy,) = (answer.result() for answer in asked if answer.result().status_code == 429)
    assert_problem(busy, 429, "The server explains at most 2 lists at a time, and does so already.")
    assert busy.headers["Retry-After"] == "1"
    assert busy.json()["type"] == "urn:atspeed:explanations-busy"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"others": 101}, "others must be less than or equal to 100, got 101."),
        ({"k": 3, "beam_width": 2}, "beam_width must be at least k, got beam_width = 2 and k = 3."),
        ({"nodes": 3}, "There is no field 'nodes'."),
    ],
)
def test_what_can_not_be_asked(server: ServerProcess, body: dict[str, Any], sentence: str):
    assert_problem(server.client.post("/v1/recommendations:explain", json={"history": HISTORY} | body), 422, sentence)
