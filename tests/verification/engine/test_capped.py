"""Lists with caps: brute-force beam searches walked by hand, whatever is filtered, excluded, reserved, blended, drafted or runs beside."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from drafting.beam.rule import MAX_BEAM_WIDTH, SearchRule, Verification
from drafting.prompts.template import PromptTemplate
from drafting.prompts.thinking import ThinkTemplate
from drafting.trie.item_set import ItemSet, intersection
from tests.capping import Walk, caps_of, check_caps, random_values
from tests.lists import alone, assert_same_list
from tests.models import random_catalog, save_random_model
from tests.oracles import brute_force_beam, model_scores
from tests.speculation import COSTS, ITEMS, SWEPT_DEPTHS, Speculation, assert_early_ends_leave_nothing, run
from tests.t5_models import save_t5_model
from tests.verification.verifiers.test_strict import random_plans
from verification.blend import Blend
from verification.recommender import Recommender
from verification.request import BeamRequest, ReservedPlaces
from verification.result import BeamResult


def random_caps(rng: np.random.Generator) -> dict[str, int]:
    names = ["brand", "genre"][: int(rng.integers(1, 3))]
    return {name: int(rng.integers(1, 4)) for name in names}


@pytest.mark.parametrize("seed", range(4))
def test_lists_with_caps_equal_brute_force(seed: int, tmp_path) -> None:
    """Random tries, attributes, caps, filters, exclusions, widths of levels and reserved places, requests joining at random."""
    rng = np.random.default_rng(seed)
    items = int(rng.integers(40, 160))
    catalog = random_catalog(items=items, depth=int(rng.integers(1, 5)), codes=int(rng.integers(3, 8)), seed=seed)
    folder = save_random_model(tmp_path / "model", catalog, layers=1, seed=seed)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    recommender = Recommender.load(folder, catalog, host="transformers", kv_memory_gib=0.05)
    engine, trie = recommender.engine, recommender.engine.trie
    identifiers = trie.token.numpy()[trie.paths(trie.leaf_of_item)]
    values = {name: random_values(items, rng) for name in ("brand", "genre")}
    asked, results = {}, []
    for number in range(10):
        k = int(rng.integers(1, 16))
        allowed = rng.random(items) < rng.choice([0.3, 0.7, 1.0])
        fresh = rng.random(items) < rng.choice([0.1, 0.5])
        excluded = rng.permutation(items)[: int(rng.choice([0, 5, items // 2]))]
        filtered = None if allowed.all() else ItemSet.of(allowed)
        may = ItemSet.of(fresh) if filtered is None else intersection([filtered, ItemSet.of(fresh)])
        widths = tuple(int(width) for width in rng.integers(1, 20, size=catalog.identifier_length - 1))
        widths = (*widths[:-1], k + int(rng.integers(0, 10))) if widths and rng.random() < 0.4 else None
        width = rng.choice([k, k + 5, MAX_BEAM_WIDTH]) if widths is None else max(widths)
        at_most = random_caps(rng)
        history = rng.integers(items, size=int(rng.integers(1, 6))).tolist()
        request = replace(
            recommender.request(str(number), history, k, int(width), excluded, cache_key=f"user {number % 3}", allowed_items=filtered),
            caps=caps_of(values, at_most),
            beam_widths=widths,
            reserved=ReservedPlaces(int(rng.integers(1, k + 1)), may) if rng.random() < 0.4 else None,
        )
        allowed[excluded] = False
        asked[str(number)] = request, at_most, allowed, fresh
        engine.add(request)
        if rng.random() < 0.5:
            results += engine.step().finished
    while engine.running:
        results += engine.step().finished
    assert engine.used_slots == 0
    rounds = [check(result, *asked[result.request_id], values, model, identifiers) for result in results]
    assert len(results) == len(asked)
    assert max(rounds) > 1 or catalog.identifier_length == 1
    assert min(rounds) == 1


def check(result: BeamResult, request: BeamRequest, at_most, allowed: np.ndarray, fresh: np.ndarray, values, model, identifiers) -> int:
    widths = request.beam_widths or request.beam_width
    search = partial(brute_force_beam, model_scores(model, request.prompt), identifiers, k=request.last_width, beam_width=widths)
    walk = Walk(identifiers, values, at_most, allowed)
    general = search(allowed=allowed)
    if request.reserved is not None:
        walk.rounds(lambda may: search(allowed=may), search(allowed=allowed & fresh), request.reserved.places, fresh)
    walk.rounds(lambda may: search(allowed=may), general, request.k)
    expected = walk.ranked()
    found: dict[int, list[int]] = {}
    for item in result.items:
        found.setdefault(item.rank, []).append(item.item)
    assert [sorted(items) for items in found.values()] == [sorted(items) for _, items in expected]
    scores = [item.score for item in result.items]
    np.testing.assert_allclose(scores, [score for score, items in expected for _ in items], atol=1e-4, rtol=0)
    check_caps([item.item for item in result.items], values, at_most)
    assert result.usage.target_forwards <= result.usage.rounds * identifiers.shape[1]
    assert result.usage.rounds <= (request.k if request.reserved is None else 2 * request.k)
    return result.usage.rounds


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_that_keeps_all_gives_the_walk_over_the_whole_catalog(seed: int, speculation: Speculation) -> None:
    """Blends as well, where each value is an item's only one of an attribute."""
    rng = np.random.default_rng(seed)
    engine, identifiers = speculation.engine(3), speculation.identifiers[:, :3]
    trie = engine.trie
    values = {"brand": [None if code == 6 else ["red", "green", "blue"][code % 3] for code in rng.integers(7, size=ITEMS)]}
    for number, request in enumerate(speculation.requests(8, rng)):
        at_most = {"brand": int(rng.integers(1, 4))}
        whole = alone(engine, replace(request, request_id="whole", k=MAX_BEAM_WIDTH, beam_width=MAX_BEAM_WIDTH))
        blend = None
        if number % 2 and len(set(range(ITEMS)) - set(request.excluded_items.tolist())):
            blend = Blend.of(trie, rng.permutation(ITEMS)[:30], rng.random(30) + 0.01, float(rng.choice([0.5, 5.0])))
        leaves = trie.level_starts[-2] + trie.leaf_of_item[[item.item for item in whole.items]].astype(np.int64)
        ranking = np.array([item.score for item in whole.items])
        ranking = ranking if blend is None else blend.ranking(leaves, ranking)
        pairs = dict(zip([tuple(identifiers[item.item].tolist()) for item in whole.items], ranking.tolist(), strict=True))
        allowed = np.ones(ITEMS, bool)
        allowed[request.excluded_items] = False
        walk = Walk(identifiers, values, at_most, allowed)
        walk.over(sorted(pairs.items(), key=lambda pair: -pair[1]), request.k)
        found = alone(engine, replace(request, caps=caps_of(values, at_most), beam_width=MAX_BEAM_WIDTH, blend=blend))
        assert [item.item for item in found.items] == [item for _, items in walk.ranked() for item in items]
        if found.blend is not None:
            np.testing.assert_allclose(found.blend.scores, [score for score, _ in walk.ranked()], atol=1e-4)


def capped(requests: list[BeamRequest], rng: np.random.Generator, trie) -> Iterator[BeamRequest]:
    """Most of the requests with caps, some of these with reserved places or a blend."""
    values = {name: random_values(ITEMS, rng) for name in ("brand", "genre")}
    for request in requests:
        if rng.random() < 0.2:
            yield request
            continue
        items = ItemSet.of(rng.random(ITEMS) < rng.choice([0.05, 0.3]))
        is_strict = request.rule.verification is Verification.STRICT
        reserved = ReservedPlaces(int(rng.integers(1, request.k + 1)), items) if is_strict and rng.random() < 0.3 else None
        blend = Blend.of(trie, rng.permutation(ITEMS)[:20], rng.random(20) + 0.01, 0.5) if is_strict and rng.random() < 0.3 else None
        yield replace(request, caps=caps_of(values, random_caps(rng)), reserved=reserved, blend=blend)


@pytest.mark.parametrize("depth", SWEPT_DEPTHS)
def test_what_is_drafted_changes_no_list(speculation: Speculation, depth: int) -> None:
    rng = np.random.default_rng(depth)
    requests = list(capped(speculation.requests(30, rng), rng, speculation.tries[depth]))
    plain = run(speculation.engine(depth), requests, rng)
    results = run(speculation.engine(depth), requests, rng, random_plans(speculation, depth, rng))
    for name, expected in plain.items():
        assert_same_list(results[name], expected)
        usage = results[name].usage
        assert usage.rounds == expected.usage.rounds
        assert 0 <= usage.used_nodes <= usage.drafted_nodes
    assert any(result.usage.rounds > 1 for result in plain.values())


def test_requests_that_end_early_leave_nothing_behind(speculation: Speculation) -> None:
    rng = np.random.default_rng(3)
    engine = speculation.engine(4, speculation.planner(4, COSTS[1]))
    requests = capped(speculation.requests(25, rng), rng, engine.trie)
    assert_early_ends_leave_nothing(engine, [replace(request, cache_key=f"user {request.k % 4}") for request in requests], rng)


def test_further_rounds_keep_the_room_that_they_need(speculation: Speculation) -> None:
    """What the first round has not needed is given to nobody, or a later one, whose beams may be larger, would find no slots."""
    rng = np.random.default_rng(5)
    engine = speculation.engine(4, speculation.planner(4, COSTS[0]))
    waiting = list(capped(speculation.requests(30, rng), rng, engine.trie))
    taken = engine.slots.nodes.allocate(engine.slots.nodes.free - 240)
    rounds = 0
    while waiting or engine.running:
        while waiting and engine.has_room(waiting[-1]):
            engine.add(waiting.pop())
        for result in engine.step().finished:
            rounds += result.usage.rounds > 1
        assert engine.slots.spare_nodes >= 0
        for search in engine.slots.owners:
            assert not search.request.caps or search.sequence.nodes + search.reserved_nodes >= sum(search.widths[1:-1])
    assert rounds > 1
    engine.slots.nodes.release(taken)
    assert engine.used_slots == 0


@pytest.mark.parametrize("is_wide_above", [True, False])
def test_caps_that_nothing_reaches_change_no_list(speculation: Speculation, is_wide_above: bool) -> None:
    """But one that a level with fewer prefixes than k has cut short goes on, as all lists with caps do."""
    rng = np.random.default_rng(7)
    engine, trie = speculation.engine(3), speculation.tries[3]
    values = {"brand": random_values(ITEMS, rng)}
    went_on = 0
    for request in speculation.requests(6, rng):
        items = ItemSet.of(rng.random(ITEMS) < 0.3)
        reserved = ReservedPlaces(int(rng.integers(1, request.k + 1)), items) if is_wide_above and rng.random() < 0.5 else None
        widths = None if is_wide_above else (1, request.beam_width)
        request = replace(request, reserved=reserved, beam_widths=widths)
        plain = alone(engine, request)
        loose = alone(engine, replace(request, caps=caps_of(values, {"brand": ITEMS})))
        if is_wide_above or len({item.rank for item in plain.items}) == request.k:
            assert_same_list(loose, plain)
            assert loose.usage.rounds == 1
            continue
        assert {item.item for item in plain.items} <= {item.item for item in loose.items}
        left = np.delete(np.arange(ITEMS), request.excluded_items)
        assert len({item.rank for item in loose.items}) == min(request.k, len(np.unique(trie.leaf_of_item[left])))
        went_on += loose.usage.rounds > 1
    assert is_wide_above or went_on > 1


def test_few_items_are_left_out_one_by_one_however_many_values_are_full(speculation: Speculation) -> None:
    """Those of further values are by a mask, or each step of all requests would look up most of the catalog."""
    engine, starts = speculation.engine(3), speculation.tries[3].level_starts
    prompt = np.concatenate([[1], speculation.identifiers[:4].reshape(-1)])
    engine.add(BeamRequest("one", prompt, 40, 40, caps=caps_of({"brand": [item // 2 for item in range(ITEMS)]}, {"brand": 1})))
    (search,) = engine.slots.owners
    while search.rounds == 1:
        assert not engine.step().finished
    # Of identifiers that are listed, and of one value.
    assert np.count_nonzero(search.eligibility.excluded_nodes >= starts[-2]) < 40 + 2
    assert search.eligibility.mask is not None
    engine.cancel("one")


@pytest.mark.parametrize("verification", [Verification.GUMBEL, Verification.RELAXED])
def test_samples_are_walked_as_they_are_drawn(speculation: Speculation, verification: Verification) -> None:
    """No sample breaks a cap; one that needs a second round goes on with what another seed draws of the rest."""
    rng = np.random.default_rng(9)
    engine = speculation.engine(4, "none" if verification is Verification.GUMBEL else "beam:20")
    values = {"brand": [("red", "green", "blue", None)[number] for number in rng.integers(4, size=ITEMS)]}
    rounds, at_most = 0, {"brand": 1}
    for request in speculation.requests(5, rng, SearchRule(verification, seed=4)):
        request = replace(request, excluded_items=request.excluded_items[:20])
        result = alone(engine, replace(request, caps=caps_of(values, at_most)))
        check_caps([item.item for item in result.items], values, at_most)
        allowed = np.ones(ITEMS, bool)
        allowed[request.excluded_items] = False
        drawn = alone(engine, replace(request, k=request.beam_width))
        walk = Walk(speculation.identifiers[:, :4], values, at_most, allowed)
        order = dict.fromkeys((tuple(speculation.identifiers[item.item, :4].tolist()), 0.0) for item in drawn.items)
        walk.over(list(order), request.k)
        first = [item for _, items in walk.listed.values() for item in items]
        if verification is Verification.GUMBEL:
            assert [item.item for item in result.items][: len(first)] == first
            assert alone(engine, replace(request, caps=caps_of(values, at_most))).items == result.items
        rounds += result.usage.rounds > 1
    assert rounds > 1


def test_a_request_that_is_cancelled_in_a_later_round_gives_all_back(speculation: Speculation) -> None:
    engine = speculation.engine(3)
    prompt = np.concatenate([[1], speculation.identifiers[:4].reshape(-1)])
    values = {"brand": [None if item % 10 == 0 else "red" for item in range(ITEMS)]}
    request = BeamRequest("one", prompt, 5, 5, caps=caps_of(values, {"brand": 1}), cache_key="ann")
    engine.add(request)
    for _ in range(4):
        assert not engine.step().finished
    (search,) = engine.slots.owners
    assert search.rounds == 2
    assert engine.cancel("one")
    assert engine.used_slots == 0
    again = alone(engine, request)
    assert len({item.rank for item in again.items}) == 5
    assert again.usage.cached_tokens == len(prompt) - 1
    assert again.usage.rounds == 2


@pytest.mark.parametrize("think", [0, 10])
def test_further_rounds_follow_an_encoder_or_a_text(tmp_path, think: int) -> None:
    """By the lists that the same engine gives of the items that are left."""
    rng, catalog = np.random.default_rng(think), random_catalog(items=120)
    folder = save_random_model(tmp_path, catalog, hidden=32, layers=1) if think else save_t5_model(tmp_path, catalog)
    PromptTemplate(max_items=5, add_bos=bool(think), think=ThinkTemplate("<c_7>", 20) if think else None).save(folder)
    recommender = Recommender.load(folder, catalog, kv_memory_gib=0.02, plan="trie", verify="never")
    identifiers, values = catalog.codes.astype(np.int64), {"brand": [("red", "green", None, None)[n] for n in rng.integers(4, size=120)]}

    def search(request: BeamRequest, may: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
        found = alone(recommender.engine, replace(request, request_id="left", allowed_items=ItemSet.of(may))).items
        return list(dict.fromkeys((tuple(identifiers[item.item].tolist()), item.score) for item in found))

    for number in range(2):
        request = recommender.request(str(number), rng.integers(120, size=4).tolist(), 8, 8, cache_key="ann", think=think)
        walk = Walk(identifiers, values, {"brand": 1}, everything := np.ones(120, bool))
        walk.rounds(partial(search, request), search(request, everything), 8)
        result = alone(recommender.engine, replace(request, caps=caps_of(values, {"brand": 1})))
        assert [item.item for item in result.items] == [item for _, items in walk.ranked() for item in items]
        assert result.usage.rounds > 1
    assert recommender.engine.used_slots == 0


def test_caps_that_can_not_be(speculation: Speculation) -> None:
    with pytest.raises(ValueError, match="at least one item of each value, got at_most = 0"):
        caps_of({"brand": ["red"]}, {"brand": 0})
    of_others = BeamRequest("x", np.array([1]), 2, 2, caps=caps_of({"brand": ["red"]}, {"brand": 1}))
    with pytest.raises(ValueError, match="caps are of another catalog than this one of 150 items"):
        speculation.engine(2).add(of_others)
