"""Blended lists on a real server: against the two models merged by hand, whatever is filtered, excluded or fresh, and what is refused."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drafting.beam.rule import SERVED_BEAM_WIDTH
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from drafting.catalog.text_column import TextColumn
from drafting.neighbours.candidates import Blending, CatalogNeighbours
from drafting.neighbours.model import NeighbourModel
from drafting.trie.arrays import offsets_of
from tests.server.forked_server import ForkedServer
from tests.server.http.test_explanations import check_nodes, explained
from tests.server.server_process import ServerProcess, assert_problem
from verification.recommender import Recommender
from verification.result import Source

HISTORY = ["item-3", "item-14", "item-3"]
DEFAULT = 0.5


def neighbour_model(names: list[str], seed: int = 0) -> NeighbourModel:
    """Every item has some of the others as neighbours."""
    rng = np.random.default_rng(seed)
    rows, columns = np.nonzero(rng.random((len(names), len(names))) < 0.3)
    counts = np.bincount(rows, minlength=len(names))
    weights = rng.random(len(rows)).astype(np.float32) + 0.01
    return NeighbourModel(TextColumn.of(names), offsets_of(counts), columns.astype(np.int32), weights, 0.97, 40, "ease")


@pytest.fixture(scope="module")
def model(catalog: Catalog) -> NeighbourModel:
    """It does not know every tenth item, and one that the catalog does not have."""
    return neighbour_model(["item-gone", *(f"item-{i}" for i in range(len(catalog)) if i % 10)])


@pytest.fixture(scope="module")
def shop(model: NeighbourModel, model_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("blend")
    model.save(folder / "shop.neighbours.safetensors")
    flags = (
        "--neighbours",
        str(folder / "shop.neighbours.safetensors"),
        "--blend",
        str(DEFAULT),
        "--plan",
        "items:200+last",
        "--timeout-ms",
        "20000",
    )
    with ForkedServer(folder, *model_flags, "--histories", "memory://", *flags) as server:
        server.wait_until_ready()
        server.client.put("/v1/catalog/filters/even", json={"items": [f"item-{i}" for i in range(0, 200, 2)]})
        server.client.put("/v1/catalog/filters/third", json={"items": [f"item-{i}" for i in range(0, 200, 3)]})
        yield server


def answer_to(server: ServerProcess, **body: Any) -> dict[str, Any]:
    response = server.recommend(**({"history": HISTORY} | body))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def identifiers(answer: dict[str, Any]) -> dict[tuple[str, ...], float]:
    return {tuple(line["identifier"]): line["score"] for line in answer["items"]}


FILTERS: list[tuple[dict[str, Any], Any]] = [
    ({}, lambda item: True),
    ({"filter": "even"}, lambda item: item % 2 == 0),
    ({"filter": {"any": ["even", "third"], "not": ["third"]}}, lambda item: item % 2 == 0 and item % 3),
    ({"exclude": [f"item-{i}" for i in range(0, 200, 7)], "exclude_history": True}, lambda item: item % 7 and item not in (3, 14)),
]


@pytest.mark.parametrize("case", range(len(FILTERS)))
@pytest.mark.parametrize(("weight", "count"), [(DEFAULT, 100), (4.0, 12)])
def test_the_list_is_the_two_models_merged(
    shop: ServerProcess, catalog: Catalog, model: NeighbourModel, case: int, weight: float, count: int
):
    """The oracle asks for the model's own list, and for a list of the candidates alone, which tells the log-probability of each."""
    extra, passes = FILTERS[case]
    history = catalog.indices_of(HISTORY).tolist()
    items, scores = CatalogNeighbours.of(model, catalog).candidates(
        history, count, allowed=lambda found: np.array([bool(passes(int(catalog.item_ids[i].split("-")[1]))) for i in found])
    )
    best: dict[tuple[str, ...], float] = {}
    for item, score in zip(items.tolist(), scores.tolist(), strict=True):
        best[catalog.identifier(item)] = max(best.get(catalog.identifier(item), 0.0), score)
    shop.client.put("/v1/catalog/filters/candidates", json={"items": [catalog.item_ids[i] for i in items.tolist()]})
    plain = {"k": 10, "beam_width": 16, "blend": {"weight": 0}} | extra
    own = identifiers(answer_to(shop, **plain))
    log_probs = own | identifiers(answer_to(shop, k=100, beam_width=256, filter="candidates", blend={"weight": 0}))
    ranking = {name: log_probs[name] + weight * math.log(best.get(name, min(best.values()) / 2)) for name in own.keys() | best.keys()}
    blend = {} if (weight, count) == (DEFAULT, 100) else {"blend": {"weight": weight, "candidates": count}}
    answer = answer_to(shop, **{"k": 10, "beam_width": 16} | extra | blend)
    lines = {tuple(line["identifier"]): line for line in answer["items"]}
    assert list(lines) == sorted(ranking, key=lambda name: -ranking[name])[:10]
    for name, line in lines.items():
        assert line["score"] == pytest.approx(log_probs[name], abs=1e-4)
        assert line["blend_score"] == pytest.approx(ranking[name], abs=1e-4)
        assert line["source"] == ("model" if name not in best else "both" if name in own else "neighbours")
    assert answer["usage"]["candidates"] == len(items)
    assert answer["usage"]["target_forwards"] + answer["usage"]["accepted_steps"] == 3


def test_weight_0_and_sampled_lists_are_the_model_s_own(shop: ServerProcess, server: ServerProcess):
    for body in ({"k": 7}, {"k": 7, "verification": "gumbel", "seed": 5}):
        answer = answer_to(shop, **({"blend": {"weight": 0}} if "seed" not in body else {}), **body)
        assert [line["item_id"] for line in answer["items"]] == [line["item_id"] for line in answer_to(server, **body)["items"]]
        assert all("source" not in line and "blend_score" not in line for line in answer["items"])
        assert "candidates" not in answer["usage"]


def test_a_tolerance_is_told_where_the_list_has_used_it(shop: ServerProcess):
    """The server's own blend takes none, nor does an explanation."""
    note = "The tolerance was not used: lists with fresh places, a blend, caps of diversity or an explanation take none."
    asked = {"k": 5, "tolerance": {"items": 1}}
    used = answer_to(shop, **asked, blend={"weight": 0})
    assert (used["exact"], "note" in used) == (False, False)
    blended, plain = answer_to(shop, **asked), answer_to(shop, k=5)
    assert (blended["exact"], blended["note"]) == (True, note)
    assert (plain["exact"], "note" in plain, plain["items"]) == (True, False, blended["items"])
    answer = explained(shop, **asked, blend={"weight": 0})
    assert (answer.exact, answer.note) == (True, note)


def test_stored_users_batches_and_counts(shop: ServerProcess):
    shop.client.post("/v1/users/ann/events", json={"events": [{"item_id": name, "timestamp": n} for n, name in enumerate(HISTORY)]})
    lists = shop.metric("atspeed_blended_lists_total")
    sources = {name: shop.metric("atspeed_blended_identifiers_total", source=name) for name in ("model", "neighbours", "both")}
    body = {"k": 5, "blend": {"weight": 2.0}}
    entries = [{"user_id": "ann"} | body, {"history": HISTORY} | body, {"history": HISTORY} | body | {"blend": {"weight": -1}}]
    results = shop.client.post("/v1/recommendations:batch", json={"requests": entries}).json()["results"]
    assert [result["status"] for result in results] == [200, 200, 422]
    stored, brought = (result["recommendation"]["items"] for result in results[:2])
    assert [line["item_id"] for line in stored] == [line["item_id"] for line in brought]
    assert shop.metric("atspeed_blended_lists_total") == lists + 2
    counted = {name: shop.metric("atspeed_blended_identifiers_total", source=name) - before for name, before in sources.items()}
    firsts = {line["rank"]: line["source"] for line in stored}
    assert counted == {name: 2 * list(firsts.values()).count(name) for name in sources}
    assert shop.metric("atspeed_kv_slots_used") == 0


def test_a_history_longer_than_the_prompt_is_that_of_offline_lists(shop: ServerProcess, model: NeighbourModel, model_flags: list[str]):
    """The prompt has the newest 5 items, the neighbour model reads 40: also of a stored user, of whom no more than needed is read."""
    target, file = map(Path, model_flags[1::2])
    recommender = Recommender.load(target, load_catalog(file), host="transformers", kv_memory_gib=0.05)
    history = np.random.default_rng(5).permutation(200)[:60].tolist()
    blending = Blending(CatalogNeighbours.of(model, recommender.catalog), 3.0, 12)
    (offline,) = recommender.recommend([history], 10, SERVED_BEAM_WIDTH, blend=blending)
    assert offline.blend is not None
    recommender.engine.close()
    names = [recommender.catalog.item_ids[item] for item in history]
    shop.client.post("/v1/users/long/events", json={"events": [{"item_id": name, "timestamp": n} for n, name in enumerate(names)]})
    for user in ({"history": names}, {"history": None, "user_id": "long"}):
        answer = answer_to(shop, k=10, blend={"weight": 3.0, "candidates": 12}, **user)
        lines = {line["rank"]: line for line in answer["items"]}
        assert [line["item_id"] for line in answer["items"]] == [recommender.catalog.item_ids[item.item] for item in offline.items]
        assert [lines[rank]["blend_score"] for rank in sorted(lines)] == pytest.approx(offline.blend.scores, abs=1e-4)


def test_a_history_that_the_neighbours_do_not_know(shop: ServerProcess):
    answer = answer_to(shop, history=["item-10", "item-20"], k=4)
    assert answer["note"] == "The neighbour model proposes nothing eligible after this history, so the list is the model's own."
    assert "candidates" not in answer["usage"]
    assert {line["source"] for line in answer["items"]} == {"model"}
    assert all(line["blend_score"] == pytest.approx(line["score"]) for line in answer["items"])


def test_new_items_take_part_with_the_floor_and_versions_are_looked_up_anew(shop: ServerProcess, catalog: Catalog):
    known = shop.metric("atspeed_neighbours_known_items")
    assert known == sum(i % 10 > 0 for i in range(len(catalog)))
    favourite = answer_to(shop, k=1, blend={"weight": 0})["items"][0]
    new = {"item_id": "new-1", "identifier": favourite["identifier"]}
    assert shop.client.post("/v1/catalog/items", json={"items": [new], "on_collision": "shared"}).status_code == 201
    made = shop.client.get("/v1/catalogs").json()["active"]
    try:
        assert shop.metric("atspeed_neighbours_known_items") == known
        listed = answer_to(shop, k=20, fresh={"max_age_days": 1, "min": 1}, blend={"weight": 3.0})["items"]
        (line,) = [line for line in listed if line.get("fresh")]
        assert line["item_id"] == "new-1"
        assert line["score"] == pytest.approx(favourite["score"], abs=1e-4)
    finally:
        shop.client.post("/v1/catalogs/rollback", json={"by": "a test"})
        shop.client.delete(f"/v1/catalogs/{made}")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"verification": "gumbel", "blend": {}}, "Only strict lists can be blended: leave blend out, or choose strict verification."),
        ({"blend": {"weight": 101}}, "blend.weight must be less than or equal to 100, got 101."),
        ({"blend": {"weight": 1, "candidates": 0}}, "blend.candidates must be greater than or equal to 1, got 0."),
        ({"blend": {"weight": 1, "candidates": 257}}, "blend.candidates must be less than or equal to 256, got 257."),
    ],
)
def test_what_can_not_be_asked(shop: ServerProcess, body: dict[str, Any], sentence: str):
    assert_problem(shop.recommend(history=HISTORY, **body), 422, sentence)


def test_a_plan_drafts_what_the_neighbour_model_proposes(shop: ServerProcess, server: ServerProcess):
    """Blended or not; the model's own list is that of a server without one."""
    drafted = answer_to(shop, k=5, blend={"weight": 0})
    assert drafted["usage"]["plan"] == "items:200+last"
    assert drafted["usage"]["used_by"]["items"] > 0
    assert [line["item_id"] for line in drafted["items"]] == [line["item_id"] for line in answer_to(server, k=5)["items"]]
    blended = answer_to(shop, k=5, blend={"weight": 0.5, "candidates": 20})["usage"]
    assert (blended["drafted_nodes"], blended["candidates"]) == (0, 20), "candidates are in the tree as they are"


def test_a_server_without_a_neighbour_model(server: ServerProcess):
    sentence = "The server has no neighbour model to blend with: leave blend out, or start it with --neighbours."
    assert_problem(server.recommend(history=HISTORY, blend={"weight": 1.0}), 422, sentence)
    sentence = "The request names no weight for blend, and the server has none of its own: give blend.weight, such as 0.5."
    assert_problem(server.recommend(history=HISTORY, blend={}), 422, sentence)


def test_what_no_server_starts_with(model_flags: list[str], tmp_path: Path):
    """A weight without a model, a file that is none, and a model of other items."""
    from server.http.server import run_server
    from server.settings import FlagSettings

    (tmp_path / "text").write_text("no model")
    neighbour_model(["a", "b", "c"]).save(tmp_path / "other")
    target, catalog = model_flags[1::2]

    def failure(**flags: Any) -> str:
        return run_server(FlagSettings(target=Path(target), catalog=Path(catalog), histories="memory://", port=0, **flags)) or ""

    assert failure(blend=0.5) == "--blend weighs a neighbour model: name its file with --neighbours, or leave --blend out."
    sentence = "--draft-items counts items of a neighbour model: name its file with --neighbours, or leave --draft-items out."
    assert failure(draft_items=20) == sentence
    sentence = "The plan drafts items of a neighbour model: name its file with --neighbours, or choose another plan."
    assert failure(plan="items:20+last") == sentence
    assert failure(neighbours=tmp_path / "text").startswith(f"{tmp_path / 'text'} is no neighbour model, or is cut off: build it anew")
    sentence = f"{tmp_path / 'other'} knows none of the 200 items of {catalog}: both must have the same ids."
    assert failure(neighbours=tmp_path / "other") == sentence


def test_candidates_are_explained(shop: ServerProcess, catalog: Catalog):
    answer = explained(shop, k=6, beam_width=6, others=0, blend={"weight": 3.0, "candidates": 30})
    scores = check_nodes(answer, answer.explanation.levels, catalog)
    assert all(scores[line.item_id] == line.score for line in answer.items)
    assert Source.NEIGHBOURS in {line.source for line in answer.items}
    for level in answer.explanation.levels:
        assert all(node.in_beam or node.candidate for node in level.nodes)
        assert not any(node.candidate and node.drafted for node in level.nodes)
