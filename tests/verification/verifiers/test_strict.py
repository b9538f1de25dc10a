"""Strict verification loses nothing: whatever is drafted, the list is plain beam search's."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch

from drafting.beam.model import TreeBatch
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.plan import Plan
from tests.explaining import check_explained
from tests.lists import assert_same_list
from tests.scoring import check_scores_beside_lists
from tests.speculation import COSTS, DEPTHS, ITEMS, SWEPT_DEPTHS, SameModel, Speculation, run
from tests.verification.engine.test_beam_search import HOSTS
from verification.engine.calibration import measure_costs
from verification.hosts.transformers import TransformersHost
from verification.request import BeamRequest
from verification.result import BeamResult
from verification.search import beam_widths
from verification.slots.pool import SlotPool

CASES = [40, pytest.param(200, marks=pytest.mark.exhaustive)]
PLANS = (
    "none",
    "trie",
    "beam:3",
    "beam:12",
    "beam:40",
    "beam:12x1",
    "beam:8+children",
    "beam:30x1+children",
    "beam:12+items:9+last",
    "auto",
)


def random_plans(speculation: Speculation, depth: int, rng: np.random.Generator) -> list[Plan]:
    """Planners for four machines, and fixed plans of any width and depth."""
    given = ["", "+last", "+items:12", "+items:30+last"]
    shapes = [f"beam:{rng.integers(1, 60)}x{rng.integers(1, 5)}{rng.choice(['', '+children'])}{rng.choice(given)}" for _ in range(8)]
    shapes += ["last", "items:30", "items:9+last", "trie+items:9+last"]
    return [*(speculation.planner(depth, costs) for costs in COSTS), *map(FixedPlan.parse, ("none", "trie", *shapes))]


@pytest.mark.parametrize("cases", CASES)
@pytest.mark.parametrize("host", HOSTS)
def test_plans_that_change_from_step_to_step_give_the_plain_list(
    host: str, cases: int, speculation: Speculation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cases on each host: of any depth, k, width, exclusions and company, drafted by another random plan at every step."""
    models = speculation if host == "transformers" else Speculation(tmp_path_factory.mktemp(host), host)
    for depth in DEPTHS:
        rng = np.random.default_rng(depth)
        requests = [replace(request, cache_key=f"user {number % 5}") for number, request in enumerate(models.requests(cases, rng))]
        plain = run(models.engine(depth), requests, rng)
        results = run(models.engine(depth), requests, rng, random_plans(models, depth, rng))
        for name, expected in plain.items():
            assert_same_list(results[name], expected)
            usage = results[name].usage
            if expected.items:
                assert usage.target_forwards + usage.accepted_steps == depth
                assert expected.usage.target_forwards == depth
            assert usage.used_nodes <= usage.drafted_nodes
        explained = [replace(request, explain=20) for request in requests[:10]]
        told = run(models.engine(depth), explained, rng, random_plans(models, depth, rng))
        for request in explained:
            check_explained(told[request.request_id], request, models.identifiers[:, :depth])
        check_scores_beside_lists(models, depth, plain, requests)
        saved = sum(result.usage.accepted_steps for result in results.values())
        assert (saved > cases / 4) == (depth > 1)
    if models is not speculation:
        models.target.close()


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("depth", SWEPT_DEPTHS)
def test_drafts_leave_the_slots_that_plain_searches_need(speculation: Speculation, depth: int, name: str) -> None:
    check_drafts_leave_slots(speculation, speculation.requests(12, np.random.default_rng(3)), depth, name)


def check_drafts_leave_slots(speculation: Speculation, requests: list[BeamRequest], depth: int, plan: str) -> None:
    """With hardly more node slots than the requests need, drafts must do without and nothing may fail."""
    plain = run(speculation.engine(depth), requests, np.random.default_rng(0))
    engine = speculation.engine(depth, plan)
    needed = sum(1 + sum(beam_widths(request, speculation.tries[depth])[1:-1]) for request in requests)
    engine.slots.nodes = SlotPool(needed + 30)
    for request in requests:
        engine.add(request)
    results: list[BeamResult] = []
    while engine.running:
        results += engine.step().finished
    for result in results:
        assert_same_list(result, plain[result.request_id])
    assert len(results) == len(requests)
    assert engine.used_slots == 0


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_perfect_draft_needs_one_forward(speculation: Speculation, depth: int) -> None:
    """The target as its own draft, with a beam as wide as the target's, is always right."""
    assert isinstance(speculation.target, TransformersHost)
    engine = speculation.engine(depth, "beam:30", SameModel(speculation.target))
    for result in run(engine, speculation.requests(10, np.random.default_rng(0)), np.random.default_rng(0)).values():
        assert result.usage.target_forwards == 1


def test_what_a_rejected_round_left_is_not_computed_again(speculation: Speculation) -> None:
    """A search under one plan computes each prefix once, so it never takes more tokens than its distinct nodes."""
    rng = np.random.default_rng(5)
    for request in speculation.requests(40, rng):
        engine = speculation.engine(4, "beam:12")
        engine.add(request)
        tokens, seen = 0, 0
        while engine.running:
            (search,) = engine._running.unfinished()
            tokens += engine.step().tokens
            nodes = search.sequence.slots[search.sequence.root + 1 :]
            trie_nodes = search.sequence.trie_nodes[search.sequence.root + 1 :].tolist()
            assert len(set(trie_nodes)) == len(trie_nodes)
            seen = len(nodes)
        assert tokens <= len(request.prompt) + seen


def test_a_draft_that_fails_is_dropped_and_the_list_stands(speculation: Speculation, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(speculation.target, TransformersHost)
    draft = SameModel(speculation.target)
    requests = speculation.requests(8, np.random.default_rng(1))
    plain = run(speculation.engine(4), requests, np.random.default_rng(0))
    engine = speculation.engine(4, "beam:30", draft)
    draft.score = lambda batch: (_ for _ in ()).throw(RuntimeError("the device is gone"))  # type: ignore[method-assign]
    results = run(engine, requests, np.random.default_rng(0))
    assert not engine.has_draft
    assert "the device is gone" in caplog.text
    for name, expected in plain.items():
        assert_same_list(results[name], expected)


def test_a_draft_that_fails_while_its_cost_is_measured_is_done_without(speculation: Speculation) -> None:
    assert isinstance(speculation.target, TransformersHost)
    draft, calls = SameModel(speculation.target), count()
    score = draft.score

    def fail_at_last(batch: TreeBatch) -> torch.Tensor:
        if next(calls) == 20:
            raise RuntimeError("the device is gone")
        return score(batch)

    draft.score = fail_at_last  # type: ignore[method-assign]
    engine = speculation.engine(4, "none", draft)
    costs = measure_costs(engine, longest_prompt=40)
    assert costs.draft is None
    assert costs.target.fixed > 0
    assert engine.used_slots == 0
    assert engine.plan.name == "none"


def test_both_models_are_measured_through_the_engine(speculation: Speculation) -> None:
    costs = measure_costs(speculation.engine(4), longest_prompt=40)
    assert costs.draft is not None
    assert costs.target.fixed > 0


@pytest.mark.parametrize("first", [1, 2])
def test_a_draft_that_is_the_target_is_accepted_wherever_it_is_asked_first(speculation: Speculation, first: int) -> None:
    """What lies above, the end of the prompt included, the draft has to compute by then."""
    assert isinstance(speculation.target, TransformersHost)
    rng = np.random.default_rng(6)
    engine = speculation.engine(4, "none", SameModel(speculation.target))
    for number in range(20):
        prompt = np.concatenate([[1], speculation.identifiers[rng.integers(ITEMS, size=5)].reshape(-1)])
        engine.use_plan(FixedPlan.parse("none"))
        engine.add(BeamRequest(str(number), prompt, 6, 6))
        for _ in range(first):
            engine.step()
        engine.use_plan(FixedPlan.parse("beam:6"))
        (result,) = engine.step().finished
        assert result.usage.target_forwards == first + 1


@pytest.mark.parametrize("error", [IndexError, TypeError, ValueError])
def test_a_draft_may_fail_in_any_way(speculation: Speculation, error: type[Exception]) -> None:
    """The plan forgets what it would have been worth."""
    assert isinstance(speculation.target, TransformersHost)
    draft, planner = SameModel(speculation.target), speculation.planner(4)
    draft.score = lambda batch: (_ for _ in ()).throw(error("the device is gone"))  # type: ignore[method-assign]
    engine = speculation.engine(4, planner, draft)
    assert len(run(engine, speculation.requests(8, np.random.default_rng(1)), np.random.default_rng(0))) == 8
    assert not engine.has_draft
    assert planner.costs.draft is None
    # An engine for another catalog does without it from the start, under whichever plan.
    for plan in (planner, FixedPlan.parse("beam:20")):
        successor = engine.successor(speculation.tries[3], plan)
        successor.add(BeamRequest("after", np.array([1, 5]), 3, 5))
        while successor.running:
            successor.step()
