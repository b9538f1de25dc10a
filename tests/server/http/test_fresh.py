"""Places for fresh items, and caps, on a real server: lists against others merged or walked by hand, and what can't be asked for."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drafting.catalog.catalog import Catalog
from drafting.catalog.freshness import day_of, today
from tests.capping import Walk, check_caps, random_values
from tests.server.forked_server import ForkedServer
from tests.server.http.test_explanations import check_nodes, explained
from tests.server.server_process import ServerProcess, assert_problem

HISTORY = ["item-3", "item-14"]
DAY = 86_400
# Midnight may pass while these tests run.
BEGAN = today()
BRANDS = random_values(200, np.random.default_rng(1))


def age(number: int) -> int | None:
    """How many days ago an item came: every fifth within ten days, one tomorrow, the others long ago or nobody knows when."""
    days = -1 if number == 5 else number // 5 % 10 if number % 5 == 0 else 400 + number if number % 2 else None
    return None if days is None else days + today() - BEGAN


def added_at(number: int) -> Any:
    days = age(number)
    if days is None:
        return None
    moment = (today() - days + 0.5) * DAY
    return moment if number % 3 else time.strftime("%Y-%m-%d", time.gmtime(moment))


@pytest.fixture(scope="module")
def dated(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dated") / "dated.jsonl"
    with path.open("w") as file:
        for number in range(len(catalog)):
            known: dict[str, Any] = {} if (when := added_at(number)) is None else {"added_at": when}
            known |= {"brand": BRANDS[number]} if BRANDS[number] else {}
            line = {"item_id": f"item-{number}", "identifier": catalog.identifier(number), "attributes": known}
            file.write(json.dumps(line) + "\n")
    return path


@pytest.fixture(scope="module")
def shop(model_dir: Path, dated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    flags = ("--target", str(model_dir), "--catalog", str(dated), "--histories", "memory://", "--timeout-ms", "20000", "--plan", "auto")
    with ForkedServer(tmp_path_factory.mktemp("shop"), *flags) as server:
        server.wait_until_ready()
        server.client.put("/v1/catalog/filters/even", json={"items": [f"item-{i}" for i in range(0, 200, 2)]})
        assert server.client.post("/v1/users/ann/events", json={"events": [{"item_id": "item-7"}]}).status_code == 200
        yield server


def answer_to(server: ServerProcess, **body: Any) -> dict[str, Any]:
    response = server.recommend(history=HISTORY, **body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def identifiers(answer: dict[str, Any]) -> dict[tuple[str, ...], float]:
    return {tuple(line["identifier"]): line["score"] for line in answer["items"]}


@pytest.mark.parametrize("days", [1, 4])
@pytest.mark.parametrize("extra", [{}, {"filter": "even"}, {"exclude": [f"item-{i}" for i in range(0, 200, 15)], "exclude_history": True}])
def test_the_list_is_two_requests_merged(shop: ServerProcess, days: int, extra: dict[str, Any]):
    fresh = {f"item-{number}" for number in range(200) if (known := age(number)) is not None and known <= days}
    assert shop.client.put("/v1/catalog/filters/fresh", json={"items": sorted(fresh)}).status_code == 200
    only = {"all": [*([extra["filter"]] if "filter" in extra else []), "fresh"]}
    general = identifiers(answer_to(shop, k=10, beam_width=16, **extra))
    for places in (1, 3, 10):
        reserved = identifiers(answer_to(shop, **({"k": places, "beam_width": 16} | extra | {"filter": only})))
        chosen = dict(reserved)
        for identifier, score in general.items():
            if len(chosen) < 10:
                chosen.setdefault(identifier, score)
        expected = sorted(chosen, key=lambda identifier: -chosen[identifier])
        answer = answer_to(shop, k=10, beam_width=16, fresh={"max_age_days": days, "min": places}, **extra)
        found = identifiers(answer)
        assert list(found) == expected
        assert list(found.values()) == pytest.approx([chosen[identifier] for identifier in expected], abs=1e-4)
        assert {line["item_id"] for line in answer["items"] if line.get("fresh")} == {line["item_id"] for line in answer["items"]} & fresh
        there = len({tuple(line["identifier"]) for line in answer["items"] if line.get("fresh")})
        assert there >= min(places, len(reserved))
        assert ("fresh items were eligible" in answer.get("note", "")) == (len(reserved) < places)


def test_all_of_too_few_come_and_the_answer_says_so(shop: ServerProcess):
    short, items = (shop.metric("atspeed_fresh_lists_total", outcome="short"), shop.metric("atspeed_fresh_items_served_total"))
    shop.client.put("/v1/catalog/filters/three", json={"items": ["item-5", "item-10", "item-55", "item-1", "item-2"]})
    answer = answer_to(shop, k=5, filter="three", fresh={"max_age_days": 3, "min": 4})
    assert {line["item_id"] for line in answer["items"] if line.get("fresh")} == {"item-5", "item-10", "item-55"}
    assert len(answer["items"]) == 5
    assert answer["note"] == "Only 3 identifiers of fresh items were eligible, fewer than the 4 places for them."
    assert shop.metric("atspeed_fresh_lists_total", outcome="short") == short + 1
    assert shop.metric("atspeed_fresh_items_served_total") == items + 3


def test_nobody_else_pays_and_users_keep_their_prompts(shop: ServerProcess):
    shop.client.post("/v1/users/ann/events", json={"events": [{"item_id": name} for name in HISTORY]})
    plain = shop.recommend(user_id="ann", k=5).json()
    fresh = shop.recommend(user_id="ann", k=5, fresh={"max_age_days": 3, "min": 2}).json()
    again = shop.recommend(user_id="ann", k=5).json()
    assert [line["item_id"] for line in plain["items"]] == [line["item_id"] for line in again["items"]]
    assert all("fresh" not in line for line in plain["items"])
    usage = fresh["usage"]
    assert (usage["prompt_tokens"], usage["cached_tokens"]) == (again["usage"]["prompt_tokens"], again["usage"]["cached_tokens"])
    assert usage["target_forwards"] + usage["accepted_steps"] == 3
    assert shop.metric("atspeed_kv_slots_used") == 0


def test_both_searches_are_explained(shop: ServerProcess, catalog: Catalog):
    answer = explained(shop, k=5, beam_width=5, others=0, fresh={"max_age_days": 4, "min": 4})
    assert answer.explanation.fresh_levels is not None
    general, fresh = (check_nodes(answer, levels, catalog) for levels in (answer.explanation.levels, answer.explanation.fresh_levels))
    assert all(line.score in (general.get(line.item_id), fresh.get(line.item_id)) for line in answer.items)
    assert {line.item_id for line in answer.items if line.fresh} <= fresh.keys()
    assert not {line.item_id for line in answer.items} <= general.keys(), "some are found by the second search alone"


def number_of(line: dict[str, Any]) -> int:
    return int(line["item_id"].removeprefix("item-"))


ONE_EACH = {"diversity": [{"attribute": "brand", "at_most": 1}]}


@pytest.mark.parametrize("extra", [{}, {"filter": "even"}, {"exclude": [f"item-{i}" for i in range(0, 200, 3)]}, ONE_EACH])
def test_a_list_with_caps_is_a_walk_over_the_whole_ranking(shop: ServerProcess, catalog: Catalog, extra: dict[str, Any]):
    """With a beam that keeps all; one with fewer prefixes finds as many, in further searches."""
    asked = {"diversity": {"attribute": "brand", "at_most": 2}} | extra
    whole = answer_to(shop, k=200, beam_width=256, **{name: value for name, value in extra.items() if name != "diversity"})
    pairs = {tuple(line["identifier"]): line["score"] for line in whole["items"]}
    allowed = np.isin(np.arange(200), [number_of(line) for line in whole["items"]])
    at_most = {"brand": 1 if "diversity" in extra else 2}
    walk = Walk(np.array([catalog.identifier(item) for item in range(200)]), {"brand": BRANDS}, at_most, allowed)
    walk.over(list(pairs.items()), 12)
    answer = answer_to(shop, k=12, beam_width=256, **asked)
    assert [number_of(line) for line in answer["items"]] == [item for _, items in walk.ranked() for item in items]
    assert "rounds" not in answer["usage"]
    narrow = answer_to(shop, k=12, beam_width=12, **asked)
    assert len({line["rank"] for line in narrow["items"]}) == 12
    assert narrow["usage"]["rounds"] > 1
    assert narrow["usage"]["target_forwards"] + narrow["usage"]["accepted_steps"] == 3 * narrow["usage"]["rounds"]
    check_caps([number_of(line) for line in narrow["items"]], {"brand": BRANDS}, at_most)
    assert shop.metric("atspeed_kv_slots_used") == 0


def test_caps_that_leave_a_list_shorter_are_told_and_explained(shop: ServerProcess, catalog: Catalog):
    shop.client.put("/v1/catalog/filters/red", json={"items": [f"item-{i}" for i in range(200) if BRANDS[i] == "red"]})
    cap = {"attribute": "brand", "at_most": 2}
    answer = explained(shop, k=5, beam_width=5, others=0, filter="red", diversity=cap)
    assert len(answer.items) == 2
    assert answer.note == "Only 2 identifiers of the catalog were eligible under the cap of diversity, fewer than the 5 asked for."
    assert {line.item_id for line in answer.items} <= check_nodes(answer, answer.explanation.levels, catalog).keys()
    wide = explained(shop, k=12, beam_width=12, others=0, diversity=cap, fresh={"max_age_days": 4, "min": 4})
    assert len({line.rank for line in wide.items}) == 12
    assert wide.usage.rounds is not None, "the tree is that of the first round"
    body = {"requests": [{"history": HISTORY, "diversity": cap}, {"history": HISTORY, "diversity": {**cap, "attribute": "no"}}]}
    assert [result["status"] for result in shop.client.post("/v1/recommendations:batch", json=body).json()["results"]] == [200, 422]
    popular = shop.recommend(history=[], k=50, diversity=cap)
    assert (popular.status_code, popular.json()["source"]) == (200, "popular")
    check_caps([number_of(line) for line in popular.json()["items"]], {"brand": BRANDS}, {"brand": 2})


@pytest.mark.parametrize(
    ("diversity", "sentence"),
    [
        ({"attribute": "brand", "at_most": 0}, "diversity.at_most must be greater than or equal to 1, got 0."),
        ([], "diversity must have at least 1 item, not 0."),
        ("brand", 'diversity must be a cap, such as {"attribute": "brand", "at_most": 2}, or a list of caps.'),
        ([{"attribute": f"a{i}", "at_most": 1} for i in range(9)], "diversity must have at most 8 items, not 9."),
        ([{"attribute": "brand", "at_most": most} for most in (1, 2)], "diversity names the attribute 'brand' twice: give it one at_most."),
        (
            {"attribute": "shelf", "at_most": 1},
            "The catalog has no attribute 'shelf', which diversity names; it has added_at, brand.",
        ),
        ({"attribute": "brand"}, "The field 'diversity.at_most' is missing."),
        ([{"attribute": "brand"}], "The field 'diversity[0].at_most' is missing."),
    ],
)
def test_caps_that_can_not_be_asked_for(shop: ServerProcess, diversity: Any, sentence: str):
    assert_problem(shop.recommend(history=HISTORY, diversity=diversity), 422, sentence)


def test_places_for_fresh_items_in_a_batch(shop: ServerProcess):
    entries = [{"history": HISTORY, "k": 3, "fresh": {"max_age_days": 3, "min": places}} for places in (1, 3, 4)]
    results = shop.client.post("/v1/recommendations:batch", json={"requests": entries}).json()["results"]
    assert [result["status"] for result in results] == [200, 200, 422]
    assert {line["rank"] for line in results[1]["recommendation"]["items"] if line.get("fresh")} == {1, 2, 3}
    assert results[2]["problem"]["detail"] == "fresh.min must be at most k, got min = 4 and k = 3."


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"k": 2, "fresh": {"max_age_days": 1, "min": 3}}, "fresh.min must be at most k, got min = 3 and k = 2."),
        ({"fresh": {"max_age_days": 0, "min": 1}}, "fresh.max_age_days must be greater than or equal to 1, got 0."),
        ({"fresh": {"max_age_days": 1, "min": 0}}, "fresh.min must be greater than or equal to 1, got 0."),
        ({"fresh": {"max_age_days": 1}}, "The field 'fresh.min' is missing."),
        (
            {"verification": "gumbel", "fresh": {"max_age_days": 1, "min": 1}},
            "Places for fresh items are for strict lists: leave fresh out, or choose strict verification.",
        ),
    ],
)
def test_what_can_not_be_asked(shop: ServerProcess, body: dict[str, Any], sentence: str):
    assert_problem(shop.recommend(history=HISTORY, **body), 422, sentence)


def test_a_catalog_that_does_not_know_its_items_ages_learns_of_new_ones(server: ServerProcess, catalog: Catalog):
    wish = {"max_age_days": 1, "min": 2}
    sentence = "No item of the catalog has the attribute added_at, by which fresh items are known."
    assert_problem(server.recommend(history=HISTORY, fresh=wish), 422, sentence)
    items = [{"item_id": f"new-{i}", "identifier": catalog.identifier(i)} for i in range(2)]
    assert server.client.post("/v1/catalog/items", json={"items": items, "on_collision": "shared"}).status_code == 201
    lines = server.recommend(history=HISTORY, k=3, fresh=wish).json()["items"]
    assert {line["item_id"] for line in lines if line.get("fresh")} == {"new-0", "new-1"}
    # Who shares an identifier with a fresh item is listed with it, and is none.
    assert {"item-0", "item-1"} <= {line["item_id"] for line in lines if "fresh" not in line}
    made = server.client.get("/v1/catalogs").json()["active"]
    assert server.client.post("/v1/catalogs/rollback", json={"by": "a test"}).json()["version"] == catalog.version
    assert server.client.delete(f"/v1/catalogs/{made}").status_code == 204


def test_days_are_those_of_utc() -> None:
    assert day_of(time.time()) in {today(), today() - 1}
