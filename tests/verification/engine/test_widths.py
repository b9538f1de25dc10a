"""Widths of each level, and wide beams, against brute force and against transformers' `generate`."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from drafting.beam.rule import MAX_BEAM_WIDTH, WIDEST_BEAM
from drafting.catalog.catalog import Catalog
from drafting.plans.costs import CostCurve, ForwardCosts
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.planner import Planner
from drafting.trie.item_set import ItemSet
from tests.capping import Walk, caps_of, random_values
from tests.lists import assert_same_list, assert_same_pairs
from tests.models import random_catalog, save_random_model
from tests.oracles import brute_force_beam, generate_lists, model_scores
from tests.speculation import noisy_copy, run
from tests.verification.engine.test_beam_search import HOSTS, as_pairs
from verification.engine.engine import SpeculativeBeamEngine
from verification.engine.reserved import merge, split_request
from verification.evaluation.generate import PrefixTable
from verification.hosts.transformers import TransformersHost
from verification.recommender import Recommender
from verification.request import BeamRequest, ReservedPlaces
from verification.result import BeamResult
from verification.verifiers.level import FEWEST_ROWS

DEPTH = 3
# Width and histories.
WIDE = [
    (256, 1),
    pytest.param((1, 200), marks=pytest.mark.exhaustive),
    pytest.param((20, 200), marks=pytest.mark.exhaustive),
    pytest.param((256, 20), marks=pytest.mark.exhaustive),
    pytest.param((1000, 20), marks=pytest.mark.exhaustive),
]


def plans(trie_fan_out: tuple[float, ...], width: int) -> list[FixedPlan | Planner]:
    """Fixed ones of every kind that may draft for a beam, and a planner for which drafts are cheap."""
    names = ("none", "trie", f"beam:{width}", f"beam:{width}x1+children", f"beam:{min(2 * width, WIDEST_BEAM)}+children")
    costs = ForwardCosts(CostCurve(1000.0, 1.0), CostCurve(20.0, 0.01))
    return [*map(FixedPlan.parse, names), Planner(costs, trie_fan_out)]


def give_draft(recommender: Recommender, folder: Path) -> None:
    """Serve with a draft beside the target, under no plan yet."""
    engine = recommender.engine
    draft = TransformersHost(folder, slots=engine.total_slots)
    recommender.engine = SpeculativeBeamEngine(engine.target, engine.trie, draft, max_beam_width=engine.max_beam_width)


@pytest.fixture(scope="module", params=HOSTS)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Recommender, AutoModelForCausalLM]]:
    """A target with a draft that is often wrong, and the plain model."""
    folder = tmp_path_factory.mktemp("widths")
    catalog = random_catalog(items=400, depth=DEPTH, codes=9, seed=4)
    target = save_random_model(folder / "target", catalog, layers=1, seed=4)
    recommender = Recommender.load(target, catalog, host=request.param, kv_memory_gib=0.05)
    give_draft(recommender, noisy_copy(target, folder / "draft", 0.15))
    yield recommender, AutoModelForCausalLM.from_pretrained(target).eval()
    recommender.close()


def test_widths_of_each_level_equal_brute_force_whatever_is_drafted(small: tuple[Recommender, AutoModelForCausalLM]) -> None:
    """Narrow levels above wide ones and below them, with filters and exclusions, in mixed batches; prompts are cached at times."""
    recommender, model = small
    trie, items = recommender.engine.trie, len(recommender.catalog)
    identifiers = trie.token.numpy()[trie.paths(trie.leaf_of_item)]
    rng = np.random.default_rng(0)
    requests, expected = [], {}
    for number in range(16):
        k = int(rng.integers(1, 30))
        widths = (int(rng.integers(1, 12)), int(rng.integers(k, 90)))
        excluded = rng.permutation(items)[: int(rng.choice([0, 40, 390]))]
        allowed = rng.random(items) < rng.choice([0.05, 0.5, 1])
        history = rng.integers(items, size=int(rng.integers(1, 8))).tolist()
        options = {"allowed_items": None if allowed.all() else ItemSet.of(allowed), "cache_key": str(number % 5)}
        request = recommender.request(str(number), history, k, None, excluded, beam_widths=widths, **options)
        assert request.beam_width == max(widths)
        allowed[excluded] = False
        requests.append(request)
        expected[request.request_id] = brute_force_beam(model_scores(model, request.prompt), identifiers, allowed, k, widths)
    for drafted in (None, plans(trie.mean_fan_out, 90)):
        found = run(recommender.engine, requests, rng, drafted)
        for name, theirs in expected.items():
            assert_same_pairs(as_pairs(found[name], identifiers), theirs)
    recommender.engine.forget_histories()


def test_lists_with_caps_equal_brute_force_on_both_hosts(small: tuple[Recommender, AutoModelForCausalLM]) -> None:
    recommender, model = small
    trie, items = recommender.engine.trie, len(recommender.catalog)
    identifiers = trie.token.numpy()[trie.paths(trie.leaf_of_item)]
    rng = np.random.default_rng(7)
    values, at_most = {"brand": random_values(items, rng)}, {"brand": 2}
    capped = [
        replace(recommender.request(str(number), rng.integers(items, size=3).tolist(), 25, 30), caps=caps_of(values, at_most))
        for number in range(4)
    ]
    found = run(recommender.engine, capped, rng, None)
    for request in capped:
        scores = model_scores(model, request.prompt)
        search = partial(brute_force_beam, scores, identifiers, k=request.last_width, beam_width=request.beam_width)
        walk = Walk(identifiers, values, at_most, np.ones(items, bool))
        again = walk.rounds(search, search(np.ones(items, bool)), request.k)
        result = found[request.request_id]
        assert sorted(item.item for item in result.items) == sorted(item for _, own in walk.ranked() for item in own)
        assert result.usage.rounds == 1 + again


def test_levels_that_are_cut_are_those_that_are_not(small: tuple[Recommender, AutoModelForCausalLM]) -> None:
    """Pieces of any size from step to step, with every plan, places, exclusions, and others in the same forwards; no slot is lost."""
    recommender, _ = small
    engine, items = recommender.engine, len(recommender.catalog)
    rng = np.random.default_rng(2)
    requests = []
    for number in range(10):
        k = int(rng.integers(1, 30))
        excluded = rng.permutation(items)[: int(rng.choice([0, 40, 390]))]
        reserved = ReservedPlaces(1, ItemSet.of(rng.random(items) < 0.1)) if number % 3 == 0 else None
        request = recommender.request(str(number), [number, 3], k, k + int(rng.integers(0, 60)), excluded, reserved=reserved)
        requests.append(request)
    engine.use_plan(FixedPlan.parse("none"))
    expected = {request.request_id: run(engine, [request], rng)[request.request_id] for request in requests}
    drafted = plans(engine.trie.mean_fan_out, 90)
    for shape in drafted:
        found: dict[str, BeamResult] = {}
        waiting = list(requests)
        while waiting or engine.running:
            for _ in range(min(int(rng.integers(0, 4)), len(waiting))):
                engine.add(waiting.pop())
            engine.use_plan(shape)
            most = int(rng.choice([1, 4, 16, 64]))
            foreseen = engine.next_tokens(most)
            report = engine.step(most_nodes=most)
            assert shape.drafts or report.tokens == foreseen
            found |= {result.request_id: result for result in report.finished}
        assert engine.used_slots == 0
        for name, theirs in expected.items():
            assert [item.rank for item in found[name].items] == [item.rank for item in theirs.items]
            assert_same_list(found[name], theirs)
    engine.use_plan(FixedPlan.parse("none"))
    engine.add(recommender.request("ended", [5], 30, 90))
    engine.step(most_nodes=1)
    engine.step(most_nodes=1)
    assert engine.cancel("ended")
    assert engine.slots.nodes.free == engine.slots.nodes.total
    engine.forget_histories()


@pytest.mark.parametrize("most", [1, 16, 64])
def test_a_step_computes_so_many_nodes_of_a_request_whether_it_has_one_search_or_two(
    small: tuple[Recommender, AutoModelForCausalLM], most: int
) -> None:
    engine, items = small[0].engine, len(small[0].catalog)
    engine.use_plan(FixedPlan.parse("none"))
    fresh = ReservedPlaces(5, ItemSet.of(np.random.default_rng(0).random(items) < 0.5))
    for reserved in (None, fresh):
        engine.add(small[0].request("wide", [5, 3], 30, 90, reserved=reserved))
        engine.step()
        steps = []
        while engine.running:
            steps.append(foreseen := engine.next_tokens(most))
            assert engine.step(most_nodes=most).tokens == foreseen
        assert max(steps) <= max(most, 1 if reserved is None else 2)
        assert len(steps) > 4 or most > 1


def test_places_are_searched_for_with_the_same_widths(small: tuple[Recommender, AutoModelForCausalLM]) -> None:
    recommender, _ = small
    trie, items = recommender.engine.trie, len(recommender.catalog)
    rng = np.random.default_rng(1)
    recommender.engine.use_plan(FixedPlan.parse("none"))
    for number in range(6):
        fresh = ItemSet.of(rng.random(items) < 0.1)
        request = recommender.request(str(number), [number, 7], 12, reserved=ReservedPlaces(5, fresh), beam_widths=(4, 30))
        alone = [run(recommender.engine, [part], rng)[part.request_id] for part in split_request(request)]
        leaves = [np.array([trie.leaf_of_item[item.item] for item in part.firsts]) for part in alone]
        scores = [np.array([item.score for item in part.firsts], np.float32) for part in alone]
        nodes, expected = merge(leaves[0], scores[0], leaves[1], scores[1], 12)
        result = run(recommender.engine, [request], rng)[request.request_id]
        assert [int(trie.leaf_of_item[item.item]) for item in result.firsts] == nodes.tolist()
        np.testing.assert_allclose([item.score for item in result.firsts], expected, atol=1e-5)


@pytest.mark.parametrize("wide", WIDE, ids=str)
@pytest.mark.parametrize("host", HOSTS)
def test_wide_beams_equal_generate_with_every_plan(wide: tuple[int, int], host: str, paper_catalog: Catalog, tmp_path: Path) -> None:
    width, histories = wide
    target = save_random_model(tmp_path / "target", paper_catalog, layers=1, heads=4, key_value_heads=2, seed=3)
    recommender = Recommender.load(target, paper_catalog, host=host, kv_memory_gib=0.25, max_beam_width=max(width, 20))
    give_draft(recommender, noisy_copy(target, tmp_path / "draft", 0.1))
    model = AutoModelForCausalLM.from_pretrained(target).eval()
    identifiers = paper_catalog.token_ids(AutoTokenizer.from_pretrained(target).get_vocab())
    table, rng = PrefixTable(identifiers), np.random.default_rng(width)
    asked = [rng.integers(len(paper_catalog), size=int(rng.integers(1, 21))).tolist() for _ in range(histories)]
    some = plans(recommender.engine.trie.mean_fan_out, width)
    for number, history in enumerate(asked):
        request = recommender.request(str(number), history, width)
        (theirs,) = generate_lists(model, [request.prompt], table, width, paper_catalog.identifier_length)
        assert_same_pairs(as_pairs(run(recommender.engine, [request], rng)[request.request_id], identifiers), theirs)
        assert_same_pairs(as_pairs(run(recommender.engine, [request], rng, some)[request.request_id], identifiers), theirs)
    recommender.close()


def test_tables_grow_with_what_runs_and_wider_beams_are_refused(small: tuple[Recommender, AutoModelForCausalLM]) -> None:
    recommender, _ = small
    plain = recommender.engine
    engine = SpeculativeBeamEngine(plain.target, plain.trie, max_beam_width=2000)
    assert len(engine._table._log_probs) == FEWEST_ROWS < engine.slots.nodes.total
    rng = np.random.default_rng(0)
    wide = recommender.request("wide", [1], 200, 2000)
    requests = [replace(wide, request_id=str(number)) for number in range(20)]
    for request in requests:
        engine.add(request)
    while engine.running:
        engine.step()
    grown = len(engine._table._log_probs)
    assert FEWEST_ROWS < grown <= engine.slots.nodes.total
    for _ in range(3):
        run(engine, requests, rng)
    assert len(engine._table._log_probs) == grown, "memory is flat"
    assert engine.slots.nodes.free == engine.slots.nodes.total
    assert engine.refusal(wide) is None
    assert engine.refusal(replace(wide, beam_width=2001)) == (
        "There is memory for beams of up to 2000, not of 2001: ask for a smaller k and beam_width, or raise --max-beam-width."
    )
    assert "--max-beam-width" in (plain.refusal(replace(wide, beam_width=MAX_BEAM_WIDTH + 1)) or "")


@pytest.mark.parametrize(
    ("k", "widths", "sentence"),
    [
        (5, (), "whole numbers from 1 to 5000"),
        (5, (0, 5), "whole numbers from 1 to 5000"),
        (5, (5, 5001), "whole numbers from 1 to 5000"),
        (5, (9, 4), "The last of beam_widths must be at least k"),
        (5, (9, 9, 9), "identifiers of 3 tokens have 2, and 3 are given"),
        (5, (9,), "identifiers of 3 tokens have 2, and 1 is given"),
        (2001, (2001, 2001), "k must be at most 2000"),
    ],
)
def test_widths_that_make_no_sense_are_refused_in_a_sentence(
    small: tuple[Recommender, AutoModelForCausalLM], k: int, widths: tuple[int, ...], sentence: str
) -> None:
    recommender, _ = small
    with pytest.raises(ValueError, match=sentence):
        recommender.request("x", [1], k, beam_widths=widths)
    with pytest.raises(ValueError, match="not both"):
        recommender.request("x", [1], 5, 5, beam_widths=(5, 5))
    lone = BeamRequest("x", np.array([1]), 1, 4, beam_widths=(4,))
    with pytest.raises(ValueError, match="identifiers of 3 tokens"):
        recommender.engine.add(lone)
