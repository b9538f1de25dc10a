"""Blended lists: the ranking of the whole catalog by brute force, whatever is filtered, excluded, reserved, drafted or runs beside it."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from drafting.beam.rule import MAX_BEAM_WIDTH, SearchRule, Verification
from drafting.catalog.text_column import TextColumn
from drafting.neighbours.candidates import Blending, CatalogNeighbours
from drafting.neighbours.model import NeighbourModel
from drafting.prompts.user_state import UserEvent, UserState
from drafting.trie.item_set import ItemSet, intersection
from drafting.trie.item_trie import ItemTrie
from tests.lists import assert_same_list
from tests.models import random_catalog, save_random_model
from tests.oracles import brute_force_beam, model_scores
from tests.speculation import COSTS, ITEMS, SWEPT_DEPTHS, Speculation, assert_early_ends_leave_nothing, run
from tests.verification.engine.test_reserved import with_places
from tests.verification.verifiers.test_strict import random_plans
from verification.blend import Blend
from verification.recommender import Recommender
from verification.request import BeamRequest, ReservedPlaces
from verification.result import BeamResult, Source

Identifier = tuple[int, ...]


@dataclass(frozen=True)
class Asked:
    """One request, and what an oracle knows of it: `allowed` and `fresh` are `[items]` bool."""

    request: BeamRequest
    allowed: np.ndarray
    fresh: np.ndarray
    scores: dict[int, float]


def ranked_by_hand(asked: Asked, model, identifiers: np.ndarray) -> tuple[list[tuple[Identifier, float, float]], dict[Identifier, Source]]:
    """Identifier, log-probability and ranking score of the list, best first, and where each comes from."""
    request = asked.request
    assert request.blend is not None
    score = model_scores(model, request.prompt)
    names = [tuple(map(int, row)) for row in identifiers]
    best: dict[Identifier, float] = {}
    for item, neighbour_score in asked.scores.items():
        best[names[item]] = max(best.get(names[item], 0.0), neighbour_score)
    floor = min(best.values(), default=2.0) / 2
    eligible = sorted({names[item] for item in np.flatnonzero(asked.allowed)})
    totals = dict.fromkeys(eligible, 0.0)
    for depth in range(identifiers.shape[1] if eligible else 0):
        rows = score([name[:depth] for name in eligible])
        for name, row in zip(eligible, rows, strict=True):
            totals[name] += float(row[name[depth]])
    general = brute_force_beam(score, identifiers, asked.allowed, request.k, request.beam_width)
    may = {names[item] for item in np.flatnonzero(asked.allowed & asked.fresh)}
    places = 0 if request.reserved is None else request.reserved.places
    reserved = brute_force_beam(score, identifiers, asked.allowed & asked.fresh, places, request.beam_width) if places else []
    own = {name for name, _ in (*general, *reserved)}
    # With beams that keep everything, what is ranked is the whole catalog.
    ranked = eligible if request.beam_width == MAX_BEAM_WIDTH else own | (best.keys() & totals.keys())
    ranking = {name: totals[name] + request.blend.weight * math.log(best.get(name, floor)) for name in ranked}
    order = sorted(ranking, key=lambda name: -ranking[name])
    first = [name for name in order if name in may][:places]
    rest = [name for name in order if name not in first][: min(request.k, len(set(names))) - len(first)]
    chosen = sorted([*first, *rest], key=lambda name: -ranking[name])
    sources = {name: Source.MODEL if name not in best else Source.BOTH if name in own else Source.NEIGHBOURS for name in chosen}
    return [(name, totals[name], ranking[name]) for name in chosen], sources


def check(result: BeamResult, asked: Asked, model, identifiers: np.ndarray) -> None:
    expected, sources = ranked_by_hand(asked, model, identifiers)
    assert result.blend is not None
    names = [tuple(map(int, identifiers[item.item])) for item in result.firsts]
    assert names == [name for name, _, _ in expected]
    np.testing.assert_allclose([item.score for item in result.firsts], [score for _, score, _ in expected], atol=1e-4, rtol=0)
    np.testing.assert_allclose(result.blend.scores, [score for _, _, score in expected], atol=1e-4, rtol=0)
    assert result.blend.sources == tuple(sources[name] for name in names)
    everybody = [item for item in np.flatnonzero(asked.allowed) if tuple(map(int, identifiers[item])) in set(names)]
    assert sorted(item.item for item in result.items) == everybody, "all eligible items of a listed identifier are listed"
    assert result.usage.candidates == len(asked.scores)
    assert result.usage.drafted_nodes == result.usage.used_nodes == 0, "candidates are no drafts of a plan"


def test_of_behaviours_candidates_follow_where_there_is_no_history():
    """As a server has it, also for files of users and in Python."""
    catalog = random_catalog(items=20)
    weights = np.ones(20, np.float32)
    next_item = NeighbourModel(
        TextColumn.of(catalog.item_ids), np.arange(21, dtype=np.int64), np.roll(np.arange(20, dtype=np.int32), -1), weights, 0.5, 3, "knn"
    )
    blending = Blending(CatalogNeighbours.of(next_item, catalog), 0.5)

    def proposed(events: list[int], **behaviours: list[int]) -> tuple[list[int], list[float]]:
        lists = {kind: [UserEvent(item) for item in items] for kind, items in behaviours.items()}
        blend = Blend.after(UserState([UserEvent(item) for item in events], lists), blending, catalog.trie, (), None)
        assert blend is not None
        return blend.paths[:, -1].tolist(), blend.scores.tolist()

    assert proposed([], buy=[3], like=[7, 9]) == proposed([3, 7, 9])
    assert proposed([3], buy=[7]) == proposed([3]) != proposed([3, 7])
    assert proposed([], buy=[]) == ([], [])


def random_blend(trie: ItemTrie, allowed: np.ndarray, rng: np.random.Generator) -> tuple[Blend, dict[int, float]]:
    """None, a few or very many candidates, only eligible ones, of scores in any unit."""
    eligible = np.flatnonzero(allowed)
    items = rng.permutation(eligible)[: int(rng.choice([0, 1, 5, 40, 200]))]
    scores = rng.choice([0.001, 1.0, 300.0]) * (0.01 + rng.random(len(items)))
    blend = Blend.of(trie, items, scores, float(rng.choice([0.01, 0.5, 3.0, 50.0])))
    return blend, dict(zip(items.tolist(), scores.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_blended_lists_equal_brute_force(seed: int, tmp_path) -> None:
    """Random tries, filters, exclusions, widths, reserved places and weights; items share identifiers, and users their prompts."""
    rng = np.random.default_rng(seed)
    catalog = random_catalog(items=int(rng.integers(40, 200)), depth=1 + seed % 4, codes=int(rng.integers(3, 8)), seed=seed)
    folder = save_random_model(tmp_path / "model", catalog, layers=1, seed=seed)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    recommender = Recommender.load(folder, catalog, host="transformers", kv_memory_gib=0.05)
    engine, trie = recommender.engine, recommender.engine.trie
    identifiers = trie.token.numpy()[trie.paths(trie.leaf_of_item)]
    asked: dict[str, Asked] = {}
    results: list[BeamResult] = []
    for number in range(10):
        k = int(rng.integers(1, 21))
        allowed = rng.random(len(trie.items)) < rng.choice([0.1, 0.6, 1.0])
        fresh = rng.random(len(trie.items)) < rng.choice([0.02, 0.1, 0.9])
        excluded = rng.permutation(len(trie.items))[: int(rng.choice([0, 5, len(trie.items) // 2]))]
        filtered = None if allowed.all() else ItemSet.of(allowed)
        may = ItemSet.of(fresh) if filtered is None else intersection([filtered, ItemSet.of(fresh)])
        allowed[excluded] = False
        blend, scores = random_blend(trie, allowed, rng)
        request = recommender.request(
            str(number),
            rng.integers(len(trie.items), size=int(rng.integers(1, 6))).tolist(),
            k,
            MAX_BEAM_WIDTH if number % 2 else k + int(rng.integers(0, 10)),
            excluded,
            cache_key=f"user {number % 3}" if number % 4 < 2 else None,
            allowed_items=filtered,
            reserved=ReservedPlaces(int(rng.integers(1, k + 1)), may) if rng.random() < 0.4 else None,
            blend=blend,
        )
        asked[str(number)] = Asked(request, allowed, fresh, scores)
        engine.add(request)
        if rng.random() < 0.5:
            results += engine.step().finished
    while engine.running:
        results += engine.step().finished
    assert engine.used_slots == 0
    assert {result.request_id for result in results} == asked.keys()
    for result in results:
        check(result, asked[result.request_id], model, identifiers)


def with_blend(request: BeamRequest, trie: ItemTrie, rng: np.random.Generator) -> BeamRequest:
    allowed = np.ones(ITEMS, bool)
    allowed[request.excluded_items] = False
    return replace(request, blend=random_blend(trie, allowed, rng)[0])


@pytest.mark.parametrize("depth", SWEPT_DEPTHS)
def test_what_is_drafted_changes_no_list(speculation: Speculation, depth: int) -> None:
    """Candidates and drafts share a tree, by every plan, also where plans change from step to step and lists are of every kind."""
    rng = np.random.default_rng(depth)
    requests = [
        with_blend(with_places(request, rng) if rng.random() < 0.3 else request, speculation.tries[depth], rng)
        if rng.random() < 0.8
        else request
        for request in speculation.requests(40, rng)
    ]
    plain = run(speculation.engine(depth), requests, rng)
    results = run(speculation.engine(depth), requests, rng, random_plans(speculation, depth, rng))
    for name, expected in plain.items():
        assert_same_list(results[name], expected)
        assert (results[name].blend is None) == (expected.blend is None)
        for each in (results[name].usage, expected.usage):
            assert not expected.items or each.target_forwards + each.accepted_steps == depth
            assert each.used_nodes <= each.drafted_nodes


def test_candidates_save_forwards_where_the_target_agrees(speculation: Speculation) -> None:
    """With all items as candidates every beam of the target is computed with the prompt."""
    trie = speculation.tries[4]
    engine = speculation.engine(4)
    prompt = np.concatenate([[1], speculation.identifiers[:4].reshape(-1)])
    blend = Blend.of(trie, np.arange(ITEMS), np.ones(ITEMS), 1.0)
    request = BeamRequest("all", prompt, 10, 10, blend=blend)
    assert blend.prefixes == sum(map(trie.level_size, (1, 2, 3)))
    assert engine.tokens_needed(request) == len(prompt) + blend.prefixes
    engine.add(request)
    assert engine.next_tokens() == len(prompt) + blend.prefixes
    (result,) = engine.step().finished
    assert result.usage.target_forwards == 1
    engine.add(replace(request, beam_width=MAX_BEAM_WIDTH, blend=None))
    plain: list[BeamResult] = []
    while engine.running:
        plain += engine.step().finished
    # Equal scores of all items change no rank of the whole catalog, which narrow beams don't see.
    assert_same_list(result, plain[0])
    assert engine.used_slots == 0


def test_requests_that_end_early_leave_nothing_behind(speculation: Speculation) -> None:
    rng = np.random.default_rng(3)
    engine = speculation.engine(4, speculation.planner(4, COSTS[1]))
    requests = (
        replace(with_blend(with_places(request, rng), speculation.tries[4], rng), cache_key=f"user {number % 4}")
        for number, request in enumerate(speculation.requests(40, rng))
    )
    assert_early_ends_leave_nothing(engine, requests, rng)


def test_a_unit_of_scores_changes_no_rank(speculation: Speculation) -> None:
    rng, trie = np.random.default_rng(5), speculation.tries[3]
    items, scores = rng.permutation(ITEMS)[:30], rng.random(30) + 0.1
    prompt = np.concatenate([[1], speculation.identifiers[:2].reshape(-1)])
    lists = []
    for unit in (1.0, 1e-6, 1e6):
        request = BeamRequest("x", prompt, 20, 20, blend=Blend.of(trie, items, unit * scores, 0.7))
        lists.append([item.item for item in run(speculation.engine(3), [request], rng)["x"].items])
    assert lists[0] == lists[1] == lists[2]


def test_what_can_not_be_blended(speculation: Speculation) -> None:
    trie = speculation.tries[3]
    some = np.array([3, 7]), np.array([1.0, 0.5])
    for weight in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"The weight of a blend must be positive and finite, got {weight}"):
            Blend.of(trie, *some, weight)
    for scores in ([1.0, 0.0], [1.0, math.inf], [math.nan, 1.0], [1.0]):
        with pytest.raises(ValueError, match="Every candidate of a blend needs a positive, finite score"):
            Blend.of(trie, some[0], np.array(scores), 1.0)
    for item in (-1, ITEMS):
        with pytest.raises(ValueError, match=f"A candidate of a blend is an item that the catalog of {ITEMS} items does not have"):
            Blend.of(trie, np.array([3, item]), some[1], 1.0)
    for verification in (Verification.GUMBEL, Verification.RELAXED):
        with pytest.raises(ValueError, match="Only strict lists can be blended"):
            BeamRequest("x", np.array([1]), 2, 2, rule=SearchRule(verification), blend=Blend.of(trie, *some, 1.0))
