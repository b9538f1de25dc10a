"""Reserved places: the list is two brute-force beam searches merged by hand, whatever is filtered, excluded, drafted or runs beside it."""

from dataclasses import replace

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from drafting.beam.rule import SearchRule, Verification
from drafting.catalog.catalog import Catalog
from drafting.trie.item_set import ItemSet, intersection
from tests.lists import assert_same_list
from tests.models import random_catalog, save_random_model
from tests.oracles import brute_force_beam, model_scores
from tests.speculation import COSTS, ITEMS, SWEPT_DEPTHS, Speculation, assert_early_ends_leave_nothing, run
from tests.verification.verifiers.test_strict import random_plans
from verification.engine.reserved import merge
from verification.recommender import Recommender
from verification.request import BeamRequest, ReservedPlaces
from verification.result import BeamResult

Pairs = list[tuple[tuple[int, ...], float]]


def merged_by_hand(general: Pairs, reserved: Pairs, k: int) -> Pairs:
    """All of the reserved list, then the best others of the general one until there are k, by score."""
    chosen = dict(reserved)
    for identifier, score in general:
        if len(chosen) < min(k, len(general)) and identifier not in chosen:
            chosen[identifier] = score
    return sorted(chosen.items(), key=lambda pair: -pair[1])


@pytest.mark.parametrize("seed", range(5))
def test_lists_with_reserved_places_equal_brute_force(seed: int, tmp_path) -> None:
    """Random tries, filters, exclusions, widths and numbers of places; with few and many items that may take them, and none."""
    rng = np.random.default_rng(seed)
    catalog: Catalog = random_catalog(
        items=int(rng.integers(60, 250)), depth=int(rng.integers(1, 5)), codes=int(rng.integers(3, 8)), seed=seed
    )
    folder = save_random_model(tmp_path / "model", catalog, layers=1, seed=seed)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    recommender = Recommender.load(folder, catalog, host="transformers", kv_memory_gib=0.05)
    engine, trie = recommender.engine, recommender.engine.trie
    identifiers = trie.token.numpy()[trie.paths(trie.leaf_of_item)]
    asked: dict[str, tuple[BeamRequest, np.ndarray, np.ndarray]] = {}
    results: list[BeamResult] = []
    for number in range(10):
        k = int(rng.integers(1, 21))
        allowed = rng.random(len(trie.items)) < rng.choice([0.1, 0.6, 1.0])
        fresh = rng.random(len(trie.items)) < rng.choice([0.0, 0.02, 0.1, 0.9])
        excluded = rng.permutation(len(trie.items))[: int(rng.choice([0, 5, len(trie.items) // 2]))]
        filtered = None if allowed.all() else ItemSet.of(allowed)
        may = ItemSet.of(fresh) if filtered is None else intersection([filtered, ItemSet.of(fresh)])
        reserved = ReservedPlaces(int(rng.integers(1, k + 1)), may)
        history = rng.integers(len(trie.items), size=int(rng.integers(1, 6))).tolist()
        key = f"user {number % 3}" if number % 2 else None
        width = k + int(rng.integers(0, 10))
        request = recommender.request(str(number), history, k, width, excluded, cache_key=key, allowed_items=filtered, reserved=reserved)
        allowed[excluded] = False
        asked[str(number)] = (request, allowed, fresh)
        engine.add(request)
        if rng.random() < 0.5:
            results += engine.step().finished
    while engine.running:
        results += engine.step().finished
    assert engine.used_slots == 0
    assert {result.request_id for result in results} == asked.keys()
    for result in results:
        check(result, *asked[result.request_id], model, identifiers)


def check(result: BeamResult, request: BeamRequest, allowed: np.ndarray, fresh: np.ndarray, model, identifiers: np.ndarray) -> None:
    assert request.reserved is not None
    score = model_scores(model, request.prompt)
    general = brute_force_beam(score, identifiers, allowed, request.k, request.beam_width)
    reserved = brute_force_beam(score, identifiers, allowed & fresh, request.reserved.places, request.beam_width)
    expected = merged_by_hand(general, reserved, request.k)
    found = [(tuple(identifiers[item.item].tolist()), item.score) for item in result.firsts]
    assert [identifier for identifier, _ in found] == [identifier for identifier, _ in expected]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], atol=1e-4, rtol=0)
    listed = {tuple(identifiers[item].tolist()) for item in np.flatnonzero(allowed & fresh)}
    assert sum(identifier in listed for identifier, _ in found) >= min(request.reserved.places, len(listed))
    ranks = {identifier: rank for rank, (identifier, _) in enumerate(found, start=1)}
    everybody = [item for item in np.flatnonzero(allowed) if tuple(identifiers[item].tolist()) in ranks]
    assert sorted(item.item for item in result.items) == everybody, "all eligible items of a listed identifier are listed"
    assert result.usage.prompt_tokens == len(request.prompt)
    if result.items:
        assert result.usage.target_forwards == identifiers.shape[1]


def with_places(request: BeamRequest, rng: np.random.Generator) -> BeamRequest:
    items = ItemSet.of(rng.random(ITEMS) < rng.choice([0.0, 0.05, 0.3]))
    return replace(request, reserved=ReservedPlaces(int(rng.integers(1, request.k + 1)), items))


@pytest.mark.parametrize("depth", SWEPT_DEPTHS)
def test_what_is_drafted_changes_no_list(speculation: Speculation, depth: int) -> None:
    """Also where one of the two searches has ended some steps before the other."""
    rng = np.random.default_rng(depth)
    requests = [with_places(request, rng) if rng.random() < 0.7 else request for request in speculation.requests(60, rng)]
    plain = run(speculation.engine(depth), requests, rng)
    results = run(speculation.engine(depth), requests, rng, random_plans(speculation, depth, rng))
    for name, expected in plain.items():
        assert_same_list(results[name], expected)
        usage = results[name].usage
        if expected.items:
            assert usage.target_forwards + usage.accepted_steps == expected.usage.target_forwards == depth
        assert usage.used_nodes <= usage.drafted_nodes


def test_requests_that_end_early_leave_nothing_behind(speculation: Speculation) -> None:
    rng = np.random.default_rng(3)
    engine = speculation.engine(4, speculation.planner(4, COSTS[1]))
    requests = [
        replace(with_places(request, rng), cache_key=f"user {number % 4}") for number, request in enumerate(speculation.requests(40, rng))
    ]
    assert_early_ends_leave_nothing(engine, requests, rng)


def test_a_prompt_is_computed_once_and_kept_for_the_user(speculation: Speculation) -> None:
    engine = speculation.engine(3)
    prompt = np.concatenate([[1], speculation.identifiers[:4].reshape(-1)])
    reserved = ReservedPlaces(2, ItemSet.of_items(range(10), ITEMS))
    request = BeamRequest("first", prompt, 5, 5, cache_key="ann", reserved=reserved)
    assert engine.tokens_needed(request) == len(prompt) + 1
    engine.add(request)
    assert engine.next_tokens() == len(prompt) + 1
    assert engine.step().tokens == len(prompt) + 1
    while engine.running:
        engine.step()
    again = replace(request, request_id="again")
    assert engine.tokens_needed(again) == 2
    engine.add(again)
    results: list[BeamResult] = []
    while not results:
        results = list(engine.step().finished)
    assert results[0].usage.cached_tokens == len(prompt) - 1


def test_a_general_list_that_has_all_of_the_reserved_one_stays_as_it_is() -> None:
    general, scores = np.array([7, 3, 9, 1]), np.array([-1.0, -2.0, -2.0, -2.0], np.float32)
    leaves, log_probs = merge(general, scores, np.array([1, 9]), np.array([-2.0, -2.0], np.float32), 4)
    assert leaves.tolist() == general.tolist()
    assert log_probs.tolist() == scores.tolist()


def test_the_worst_others_make_room() -> None:
    general, scores = np.array([7, 3, 9, 1]), np.array([-1.0, -2.0, -3.0, -4.0], np.float32)
    leaves, log_probs = merge(general, scores, np.array([9, 5, 6]), np.array([-3.0, -3.5, -9.0], np.float32), 4)
    assert leaves.tolist() == [7, 9, 5, 6]
    assert log_probs.tolist() == [-1.0, -3.0, -3.5, -9.0]


def test_places_that_can_not_be_reserved() -> None:
    some = ItemSet.of_items([0], 3)
    for places in (0, 3):
        with pytest.raises(ValueError, match=f"Between 1 and k = 2 places can be reserved, got {places}"):
            BeamRequest("x", np.array([1]), 2, 2, reserved=ReservedPlaces(places, some))
    with pytest.raises(ValueError, match="Places can only be reserved in strict lists"):
        BeamRequest("x", np.array([1]), 2, 2, rule=SearchRule(Verification.GUMBEL), reserved=ReservedPlaces(1, some))
