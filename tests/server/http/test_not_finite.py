"""A real server whose model is damaged: what its clients and its operators are told."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from drafting.catalog.catalog import Catalog
from tests.server.forked_server import ForkedServer
from tests.server.server_process import ServerProcess, assert_problem
from tests.verification.engine.test_not_finite import damage

SENTENCE = "The model's scores after this history were not finite (NaN or infinite), so there is no list."


def damage_item(model_dir: Path, folder: Path, catalog: Catalog, item: int) -> Path:
    """The model, but for the embedding of the last token of an item, which is read in histories only: with it in a beam a list is whole."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    damage(model_dir, folder, [tokenizer.convert_tokens_to_ids(catalog.identifier(item)[-1])])
    tokenizer.save_pretrained(folder)
    (folder / "prompt.json").write_bytes((model_dir / "prompt.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def apart(catalog: Catalog) -> int:
    """An item whose identifier ends with another token than that of the first, which the engine warms up with."""
    return next(item for item in range(len(catalog)) if catalog.identifier(item)[-1] != catalog.identifier(0)[-1])


@pytest.fixture(scope="module")
def damaged(
    model_dir: Path, catalog: Catalog, catalog_file: Path, apart: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("damaged")
    target = damage_item(model_dir, folder / "model", catalog, apart)
    flags = ["--target", str(target), "--catalog", str(catalog_file), "--histories", "memory://", "--timeout-ms", "20000"]
    with ForkedServer(folder, *flags) as server:
        yield server.wait_until_ready()


def test_a_request_gets_a_problem_that_says_what_the_model_did_and_the_others_their_lists(
    damaged: ServerProcess, server: ServerProcess, catalog: Catalog, apart: int
):
    sound = next(item for item in range(1, len(catalog)) if catalog.identifier(item)[-1] != catalog.identifier(apart)[-1])
    expected = server.recommend(history=[f"item-{sound}"], k=5).json()["items"]
    before = damaged.metric("atspeed_not_finite_lists_total")
    response = damaged.recommend(history=[f"item-{apart}"], k=1)
    assert_problem(response, 500, SENTENCE)
    assert response.json()["type"] == "urn:atspeed:scores-not-finite"
    histories = [[f"item-{sound}"], [f"item-{apart}"], [f"item-{sound}", f"item-{apart}"], [f"item-{sound}"]]
    requests = [{"history": history, "k": 5} for history in histories]
    results = damaged.client.post("/v1/recommendations:batch", json={"requests": requests}).json()["results"]
    assert [result["status"] for result in results] == [200, 500, 500, 200]
    assert results[1]["problem"]["detail"] == SENTENCE
    for result in (results[0], results[3]):
        assert [line["item_id"] for line in result["recommendation"]["items"]] == [line["item_id"] for line in expected]
    assert damaged.metric("atspeed_not_finite_lists_total") == before + 3
    assert damaged.metric("atspeed_kv_slots_used") == 0
    assert damaged.client.get("/ready").status_code == 200
    assert "500" in damaged.client.get("/openapi.json").json()["paths"]["/v1/recommendations"]["post"]["responses"]


def test_nothing_of_the_user_is_cached(damaged: ServerProcess, apart: int):
    damaged.client.post("/v1/users/ann/events", json={"item_id": f"item-{apart}"})
    cached = damaged.metric("atspeed_kv_slots_cached")
    for _ in range(2):
        assert_problem(damaged.recommend(user_id="ann", k=1), 500, SENTENCE)
    assert damaged.metric("atspeed_kv_slots_cached") == cached
