"""Drafting where reading waits for the device: levels of a planned width, whose prefixes the host learns with the target's selection.

On CPUs, which the two looks at the device are told are none; the stand-in device runs the same in `test_host_reads`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from drafting.beam.rule import STRICT, SearchRule, Verification
from drafting.beam.tree import Origin
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.plan import Action, DraftRound, LevelOutcome
from drafting.trie.item_set import ItemSet
from tests.explaining import check_explained
from tests.lists import assert_same_list
from tests.speculation import ITEMS, SWEPT_DEPTHS, SameModel, Speculation, noisy_copy, run
from tests.verification.verifiers.test_strict import PLANS, check_drafts_leave_slots, random_plans
from verification.hosts.transformers import TransformersHost
from verification.request import BeamRequest
from verification.result import BeamResult
from verification.search import BeamSearch

# Where the engine looks whether reading waits.
LOOKS = ("drafting.plans.drafters", "drafting.trie.eligibility", "verification.verifiers.level")
RULES = [STRICT, SearchRule(Verification.GUMBEL, seed=3, temperature=0.7)]


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in LOOKS:
        monkeypatch.setattr(f"{module}.is_async", lambda device: True)


def requests_of(speculation: Speculation, count: int, rng: np.random.Generator, rule: SearchRule = STRICT) -> list[BeamRequest]:
    """Of any k, width and exclusions, half of them filtered besides, some so that nothing or next to nothing is left."""
    requests = speculation.requests(count, rng, rule)
    shares = rng.choice([0.0, 0.02, 0.3, 0.9], size=count)
    return [
        replace(request, allowed_items=ItemSet.of(rng.random(ITEMS) < share)) if number % 2 else request
        for number, (request, share) in enumerate(zip(requests, shares, strict=True))
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.verification.value)
@pytest.mark.parametrize("depth", SWEPT_DEPTHS)
def test_plans_that_change_from_step_to_step_give_the_plain_list(speculation: Speculation, depth: int, rule: SearchRule) -> None:
    rng = np.random.default_rng(depth)
    requests = [replace(request, cache_key=f"user {number % 5}") for number, request in enumerate(requests_of(speculation, 60, rng, rule))]
    plain = run(speculation.engine(depth), requests, rng)
    results = run(speculation.engine(depth), requests, rng, random_plans(speculation, depth, rng))
    for name, expected in plain.items():
        assert_same_list(results[name], expected)
        usage = results[name].usage
        assert usage.used_nodes <= usage.drafted_nodes
        if expected.items:
            assert usage.target_forwards + usage.accepted_steps == depth
    assert (sum(result.usage.accepted_steps for result in results.values()) > 20) == (depth > 1)
    explained = [replace(request, explain=20) for request in requests[:20]]
    told = run(speculation.engine(depth), explained, rng, random_plans(speculation, depth, rng))
    for request in explained:
        check_explained(told[request.request_id], request, speculation.identifiers[:, :depth], is_read=False)


@pytest.mark.parametrize("name", PLANS[1:])
def test_drafts_leave_the_slots_that_plain_searches_need(speculation: Speculation, name: str) -> None:
    check_drafts_leave_slots(speculation, requests_of(speculation, 12, np.random.default_rng(3)), 4, name)


def test_a_level_is_as_wide_as_planned_and_no_wider_than_it_can_be(speculation: Speculation) -> None:
    """Where fewer are eligible, nodes stand for no prefix; all this is known after the step."""
    trie = speculation.tries[4]
    engine = speculation.engine(4, "beam:12")
    prompt = np.concatenate([[1], speculation.identifiers[:4].reshape(-1)])
    engine.add(BeamRequest("few", prompt, 3, 3, allowed_items=ItemSet.of_items([5, 50], ITEMS)))
    engine.add(BeamRequest("many", prompt, 12, 12))
    few, many = engine._running.unfinished()
    engine.step()
    for search, eligible in ((few, 2), (many, 12)):
        sequence = search.sequence
        for depth in range(2, 4):
            nodes = sequence.trie_nodes[sequence.depths == depth]
            real = nodes[nodes >= 0]
            # What the target wanted besides stands behind them.
            assert len(nodes) >= 12
            assert set(nodes[nodes < 0].tolist()) <= {-1}
            assert np.count_nonzero(nodes[:12] >= 0) == min(12, eligible)
            assert np.all((trie.level_starts[depth] <= real) & (real < trie.level_starts[depth + 1]))
    for name in ("few", "many"):
        engine.cancel(name)
    assert engine.used_slots == 0


def test_a_fixed_plan_drafts_as_many_at_each_level_however_few_are_kept(speculation: Speculation, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is worth drafting for a level limits the children of one that is not read, and no beam that a plan names."""
    monkeypatch.setattr("drafting.plans.plan.MOST_PROPOSALS", 10)
    trie, engine = speculation.tries[4], speculation.engine(4, "beam:40")
    engine.add(BeamRequest("narrow", np.concatenate([[1], speculation.identifiers[:4].reshape(-1)]), 3, 3))
    (search,) = engine._running.unfinished()
    engine.step()
    drafted = search.sequence.depths[search.sequence.origins == Origin.BEAM]
    assert np.bincount(drafted)[1:].tolist() == [min(40, trie.level_size(depth)) for depth in range(1, 4)]


def prefixes(search: BeamSearch) -> list[int]:
    """Trie nodes of all drafted and selected prefixes, `-1` for none."""
    found: list[int] = search.sequence.trie_nodes[search.sequence.root + 1 :].tolist()
    return found


def test_prefixes_that_rounds_repeat_change_nothing(speculation: Speculation, tmp_path: Path) -> None:
    """A draft that is mostly wrong proposes in each round what earlier rounds have left; no excluded item comes by way of a second node."""
    draft = TransformersHost(
        noisy_copy(Path(speculation.target.model.config._name_or_path), tmp_path / "draft", 1.0),  # type: ignore[attr-defined]
        slots=speculation.target.total_slots,
    )
    rng, repeated = np.random.default_rng(4), 0
    for number, request in enumerate(requests_of(speculation, 24, rng)):
        (expected,) = run(speculation.engine(5), [request], rng).values()
        engine = speculation.engine(5, ("beam:20", "beam:40", "beam:12x2+children")[number % 3], draft)
        engine.add(request)
        results: list[BeamResult] = []
        while engine.running:
            (search,) = engine._running.unfinished()
            results += engine.step().finished
            real = [node for node in prefixes(search) if node >= 0]
            repeated += len(real) - len(set(real))
        assert_same_list(results[0], expected)
        assert engine.used_slots == 0
    assert repeated > 100


@pytest.mark.parametrize("plan", ["beam:30", "beam:30x1+children"])
def test_a_perfect_draft_needs_one_forward(speculation: Speculation, plan: str) -> None:
    assert isinstance(speculation.target, TransformersHost)
    depth = 3 if plan.endswith("children") else 5
    engine = speculation.engine(depth, plan, SameModel(speculation.target))
    for result in run(engine, speculation.requests(10, np.random.default_rng(0)), np.random.default_rng(0)).values():
        assert result.usage.target_forwards == 1


@dataclass(frozen=True)
class Learner(FixedPlan):
    """A fixed plan that keeps what it is told."""

    told: list[LevelOutcome] = field(default_factory=list)
    children_told: list[tuple[int, float]] = field(default_factory=list)
    most_children: list[int | None] = field(default_factory=list)

    def action(self, state: DraftRound, has_draft: bool) -> Action:
        self.most_children.append(state.most_children)
        return super().action(state, has_draft)

    def learn_children(self, state: DraftRound, parents: int, children: int) -> None:
        self.children_told.append((parents, children))

    @property
    def learns(self) -> bool:
        return True

    def learn(self, outcomes: Sequence[LevelOutcome]) -> None:
        self.told.extend(outcomes)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.verification.value)
def test_a_plan_learns_what_it_would_by_reading(speculation: Speculation, rule: SearchRule, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first step, before rounds repeat anything."""
    told = []
    for waits in (False, True):
        for module in LOOKS:
            monkeypatch.setattr(f"{module}.is_async", lambda device, waits=waits: waits)
        engine = speculation.engine(4, plan := Learner("beam:12", 12))
        for request in requests_of(speculation, 20, np.random.default_rng(0), rule):
            engine.add(request)
        engine.step()
        told.append(plan.told)
    assert len(told[0]) == len(told[1]) > 20
    assert any((outcome.ranks < 0).any() for outcome in told[0])
    by_reading, unread = (sorted(each, key=lambda outcome: (outcome.depth, len(outcome.ranks), outcome.scores.tolist())) for each in told)
    for one, other in zip(by_reading, unread, strict=True):
        assert (one.depth, one.levels, one.verification) == (other.depth, other.levels, other.verification)
        np.testing.assert_array_equal(one.ranks, other.ranks)
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-5)


@pytest.mark.parametrize("reads", [True, False])
def test_children_that_were_not_counted_are_not_learned_from(
    speculation: Speculation, reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the draft's level the host can't count them; below the root it can. The plan is told how many are computed in their place."""
    for module in LOOKS:
        monkeypatch.setattr(f"{module}.is_async", lambda device: not reads)
    trie, prompt = speculation.tries[4], np.concatenate([[1], speculation.identifiers[0]])
    engine = speculation.engine(4, below := Learner("beam:12x1+children", 12, most_levels=1, children=True))
    engine.add(BeamRequest("one", prompt, 9, 9))
    engine.step()
    assert bool(below.children_told) == reads
    assert below.most_children[0] is None, "nothing is drafted yet"
    assert below.most_children[1] == (None if reads else min(12 * trie.max_children[1], trie.level_size(2)))
    engine = speculation.engine(4, root := Learner("trie", 0, children=True))
    engine.add(BeamRequest("one", prompt, 9, 9))
    engine.step()
    assert root.children_told[0] == (1, trie.level_size(1))
