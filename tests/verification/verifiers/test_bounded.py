"""Lists with a tolerance: never further from plain beam search's than it says, whatever is drafted, and with fewer forwards."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from drafting.array_types import IntArray
from drafting.beam.rule import Normalisation, SearchRule, Tolerance, Verification
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.plan import LevelOutcome
from drafting.trie.item_set import ItemSet
from drafting.trie.item_trie import ItemTrie
from tests.capping import caps_of
from tests.lists import assert_same_list
from tests.speculation import ITEMS, SameModel, Speculation, run
from verification.blend import Blend
from verification.hosts.transformers import TransformersHost
from verification.request import BeamRequest, ReservedPlaces
from verification.verifiers.bounded import ROUNDING, LookAhead, shares_of

LOOKS = ("drafting.plans.drafters", "drafting.trie.eligibility", "verification.verifiers.level")


class RandomModel:
    """Probabilities of all nodes of a random trie, plain beam search over them, and look-aheads over whatever happens to be drafted."""

    def __init__(self, rng: np.random.Generator) -> None:
        depth = int(rng.integers(2, 5))
        codes = rng.integers(2, 9, size=depth)
        self.trie = ItemTrie.build(np.stack([100 * level + rng.integers(size, size=40) for level, size in enumerate(codes)], axis=1))
        self.log_probs = np.zeros(self.trie.nodes, np.float32)
        leak = rng.choice([0.0, 0.3])
        for node in range(self.trie.level_starts[-2]):
            first, last = self.trie.first_child[node : node + 2]
            shares = rng.dirichlet(np.full(last - first, rng.choice([0.1, 1.0, 10.0]))) * (1 - leak)
            self.log_probs[first:last] = self.log_probs[node] + np.log(np.maximum(shares, 1e-30))
        self.eligible = rng.random(self.trie.nodes) < rng.choice([0.8, 1.0])
        self.widths = rng.integers(1, 9, size=depth)
        # Prefixes that a look-ahead knows beside each beam.
        self.beside = int(rng.choice([0, 3, 8]))

    def best(self, parents: IntArray, width: int) -> IntArray:
        below = np.concatenate([np.arange(*self.trie.first_child[node : node + 2]) for node in parents] or [np.empty(0, int)])
        below = below[self.eligible[below]]
        return below[np.argsort(-self.log_probs[below], kind="stable")][:width]

    def exact(self) -> IntArray:
        nodes = np.zeros(1, np.int64)
        for width in self.widths.tolist():
            nodes = self.best(nodes, width)
        return nodes

    def look_ahead(self, drafted: np.ndarray) -> tuple[LookAhead, IntArray]:
        """The look-ahead from the root, and the list that it comes to."""
        proof, nodes = LookAhead(self.trie), np.zeros(1, np.int64)
        for depth, width in enumerate(self.widths.tolist(), start=1):
            is_last = depth == self.trie.depth
            nodes = self.best(nodes[drafted[nodes]] if depth > 1 else nodes, width if is_last else width + self.beside)
            if drafted[nodes[:width]].all():
                nodes = nodes[:width]
            if depth == 1:
                proof.reject(nodes, self.log_probs[nodes], drafted[nodes], width)
            else:
                proof.descend(nodes, self.log_probs[nodes], depth, width, None if is_last else drafted[nodes])
        return proof, nodes


@pytest.mark.parametrize("cases", [600, pytest.param(30_000, marks=pytest.mark.exhaustive)])
def test_no_bound_is_ever_broken(cases: int) -> None:
    """Over random tries, probabilities, filters, widths and drafts, for bounds of both kinds; and the proofs do find lists."""
    rng, proven, equal = np.random.default_rng(0), 0, 0
    for _ in range(cases):
        model = RandomModel(rng)
        exact, k = model.exact(), int(model.widths[-1])
        proof, found = model.look_ahead(rng.random(model.trie.nodes) < rng.choice([0.5, 0.8, 0.95]))
        masses = np.exp(model.log_probs[exact].astype(float))
        missing = ~np.isin(exact, found)
        lost = float(masses[missing].sum() / masses.sum()) if len(exact) else 0.0
        for items in range(min(k, 3)):
            if proof.is_within(Tolerance(items=items), k):
                proven += items > 0 and missing.any()
                equal += not items
                assert missing.sum() <= items
        for mass in (0.01, 0.1, 0.3):
            if proof.is_within(Tolerance(mass=mass), k):
                proven += missing.any()
                assert lost <= mass
    assert proven > cases / 50
    assert equal > cases / 50


def test_descendants_of_missing_prefixes_are_counted_in_little_memory() -> None:
    rng = np.random.default_rng(5)
    proof = LookAhead(ItemTrie.build(rng.integers(2, 9, size=(40, 3))))
    proof._missing_probabilities = np.append(rng.random(1000), 0.0)
    proof._missing_starts = rng.integers(0, 50, 1001)
    proof._missing_ends = proof._missing_starts + rng.integers(0, 9, 1001)
    probabilities = np.append(rng.random(500) / 9, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        fitting = np.floor(proof._missing_probabilities / probabilities[:, None] * (1 + ROUNDING))
    expected = np.fmin(fitting, proof._missing_ends - proof._missing_starts).sum(1)
    tracemalloc.start()
    try:
        found = proof._unknown(probabilities)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.tolist() == expected.tolist()
    # All pairs at once, as numbers of eight bytes each, are 4 MB.
    assert most < 3_000_000


@pytest.mark.parametrize("items", [1, 2, 3])
def test_prefixes_of_the_last_level_whose_shares_fit_may_be_missing(items: int) -> None:
    """And only these: where all above was drafted, and nothing stands in, shares say what the proof says."""
    rng, within, not_within = np.random.default_rng(1), 0, 0
    for _ in range(400):
        model = RandomModel(rng)
        model.beside = 0
        depth, k = model.trie.depth - 1, int(model.widths[-1])
        first, end = model.trie.level_starts[depth : depth + 2]
        drafted = np.ones(model.trie.nodes, bool)
        drafted[first:end] = rng.random(end - first) < 0.8
        proof, found = model.look_ahead(drafted)
        beam = np.zeros(1, np.int64)
        for width in model.widths[:-1].tolist():
            beam = model.best(beam, width)
        if len(found) < k or k <= items:
            continue
        shares = shares_of(model.trie, Tolerance(items), beam, model.log_probs[beam], depth, model.log_probs[found], levels=1)
        fits = bool(shares[~drafted[beam]].sum() <= 1 + 1e-9)
        assert proof.is_within(Tolerance(items), k) == fits
        within, not_within = within + (fits and not drafted[beam].all()), not_within + (not fits)
    assert min(within, not_within) > 5


def test_levels_share_a_tolerance_but_each_may_miss_an_item() -> None:
    """Each prefix is one item, which is listed; it takes nothing where even without it the list's first ones are the same."""
    trie = ItemTrie.build(np.array([[0, 10], [1, 11], [2, 12], [3, 13]]))
    beam, log_probs = np.arange(1, 5), np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    for tolerance, expected in (
        (Tolerance(items=6), [1 / 2, 0, 0, 0]),
        (Tolerance(items=2), [1, 1, 0, 0]),
        (Tolerance(mass=0.9), [4 / 3, 1, 2 / 3, 1 / 3]),
    ):
        assert shares_of(trie, tolerance, beam, log_probs, 1, log_probs, levels=3) == pytest.approx(np.array(expected))


def test_drafted_prefixes_behind_a_beam_stand_in_for_its_missing_ones() -> None:
    """Without them a list lacks an item for each missing prefix that has one child, and its tolerance is of no use."""
    trie = ItemTrie.build(np.array([[code, 10 + code] for code in range(6)]))
    log_probs = np.log(np.array([1.0, *([0.3, 0.2, 0.15, 0.1, 0.08, 0.05] * 2)], np.float32))
    for known, listed, is_enough in ((4, [7, 8, 10], False), (6, [7, 8, 10, 11], True)):
        prefixes = np.arange(1, 1 + known)
        proof = LookAhead(trie)
        proof.reject(prefixes, log_probs[prefixes], prefixes != 3, 4)
        proof.descend(np.array(listed), log_probs[listed], 2, 4, None)
        assert proof.is_within(Tolerance(items=1), 4) == is_enough
        assert not proof.is_within(Tolerance(mass=0.1), 4)


class Listening(FixedPlan):
    """A fixed plan that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__("beam:12", 12)
        object.__setattr__(self, "told", [])

    @property
    def learns(self) -> bool:
        return True

    def learn(self, outcomes: Sequence[LevelOutcome]) -> None:
        self.told.extend(outcomes)


def test_plans_are_told_what_lists_with_a_tolerance_would_have_wanted(speculation: Speculation) -> None:
    plan, tolerance = Listening(), Tolerance(2, 0.1)
    engine, rng = speculation.engine(4, plan), np.random.default_rng(2)
    asked = speculation.requests(12, rng)
    run(engine, [replace(each, tolerance=tolerance if number % 2 else None) for number, each in enumerate(asked)], rng)
    strict = [each for each in plan.told if each.tolerance is None]
    tolerant = [each for each in plan.told if each.tolerance is not None]
    assert len(strict) > len(tolerant) > 0
    for each in tolerant:
        assert each.tolerance == tolerance
        assert each.shares is not None
        assert len(each.shares) == len(each.ranks)
        assert (each.shares >= 0).all()
        assert any(each.ranks is other.ranks for other in strict)


def test_what_the_look_ahead_cuts_off_may_be_in_the_exact_list() -> None:
    """Prefix 1 was not drafted and has no likely continuation, but it keeps 0-11 and 0-12 out of plain beam search's beam. So that comes to
    0-10-21, which the look-ahead has cut off behind 0-11-20 and 0-12-20, and to all of its items in place of the look-ahead's best."""
    below = {
        **{(0,): 0.5, (1,): 0.45},
        **{(0, 10): 0.25, (0, 11): 0.12, (0, 12): 0.11, (1, 13): 0.22, (1, 14): 0.22},
        **{(0, 10, 20): 0.1, (0, 11, 20): 0.08, (0, 12, 20): 0.07, (0, 10, 21): 0.06, (1, 13, 23): 1e-6, (1, 14, 23): 1e-6},
        **{(0, 10, 20, 30): 0.01, **{(0, 10, 21, last): 0.02 for last in (31, 32, 33)}},
        **{(0, code, 20, last): 0.005 for code in (11, 12) for last in range(40, 50)},
        **{(1, code, 23, 35): 1e-7 for code in (13, 14)},
    }
    trie = ItemTrie.build(np.array([prefix for prefix in below if len(prefix) == 4]))
    # Nodes are numbered level by level, and by their tokens.
    node_of = {prefix: node for node, prefix in enumerate(sorted(below, key=lambda prefix: (len(prefix), prefix)), start=1)}
    log_probs = np.zeros(trie.nodes, np.float32)
    for prefix, probability in below.items():
        log_probs[node_of[prefix]] = np.log(probability)
    proof, nodes = LookAhead(trie), np.array([node_of[0,], node_of[1,]])
    proof.reject(nodes, log_probs[nodes], np.array([True, False]), 2)
    found = ([(0, 10), (0, 11), (0, 12)], [(0, 10, 20), (0, 11, 20), (0, 12, 20)], [(0, 10, 20, 30), (0, 11, 20, 40), (0, 11, 20, 41)])
    for depth, prefixes in enumerate(found, start=2):
        nodes = np.array([node_of[prefix] for prefix in prefixes])
        proof.descend(nodes, log_probs[nodes], depth, 3, None if depth == 4 else np.ones(3, bool))
    assert not proof.is_within(Tolerance(items=2), 3)
    assert proof.is_within(Tolerance(items=3), 3)


@pytest.mark.parametrize("waits", [False, True])
def test_lists_of_the_engine_are_within_their_tolerance(speculation: Speculation, waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside strict lists in the same steps, which stay as they are; with exclusions, filters and wider beams, for drafts too narrow."""
    for module in LOOKS:
        monkeypatch.setattr(f"{module}.is_async", lambda device: waits)
    assert isinstance(speculation.target, TransformersHost)
    depth, rng, saved = 4, np.random.default_rng(1), 0
    tolerances = (None, Tolerance(), Tolerance(items=2), Tolerance(mass=0.2))
    requests = [
        replace(
            request,
            normalise=Normalisation.CHILDREN,
            allowed_items=ItemSet.of(rng.random(ITEMS) < 0.7) if number % 3 == 1 else None,
            tolerance=tolerances[number % 4],
            cache_key=f"user {number % 20}",
        )
        for number, request in enumerate(speculation.requests(60, rng))
    ]
    plain = run(speculation.engine(depth), [replace(request, tolerance=None) for request in requests], rng)
    same = SameModel(speculation.target)
    strict = run(
        speculation.engine(depth, "beam:12", same), [replace(request, tolerance=None) for request in requests], np.random.default_rng(2)
    )
    engine = speculation.engine(depth, "beam:12+last", same)
    close = run(engine, requests, np.random.default_rng(2))
    for request in requests:
        expected, found, tolerance = plain[request.request_id], close[request.request_id], request.tolerance
        if expected.items:
            assert found.usage.target_forwards + found.usage.accepted_steps == depth
        saved += strict[request.request_id].usage.target_forwards - found.usage.target_forwards
        if tolerance is None or tolerance == Tolerance():
            assert_same_list(found, expected)
            continue
        listed = {item.item for item in found.items}
        missing = [item for item in expected.items if item.item not in listed]
        scores = {item.rank: np.exp(item.score) for item in expected.items}
        lost = sum({item.rank: scores[item.rank] for item in missing}.values()) / max(sum(scores.values()), 1e-300)
        assert len({item.rank for item in missing}) <= tolerance.items or lost <= tolerance.mass + 1e-5
    assert saved > 5
    starts = speculation.tries[depth].level_starts[1:-1]
    for user in range(20):
        if len(kept := engine.slots.last_beams.find(f"user {user}", speculation.tries[depth])):
            assert np.bincount(np.searchsorted(starts, kept, side="right"), minlength=depth)[1:].all(), "beams of all levels"


def test_a_list_that_ends_early_counts_its_drafts_and_keeps_its_beams(speculation: Speculation) -> None:
    """All prefixes of its items were drafted, and are kept for the next list of the user."""
    depth, rng, early = 4, np.random.default_rng(3), 0
    assert isinstance(speculation.target, TransformersHost)
    engine, strict = (speculation.engine(depth, "beam:12+last", SameModel(speculation.target)) for _ in range(2))
    trie = speculation.tries[depth]
    for request in speculation.requests(30, rng):
        asked = replace(request, cache_key="user", normalise=Normalisation.CHILDREN)
        (found,) = run(engine, [replace(asked, tolerance=Tolerance(items=5))], rng).values()
        (exact,) = run(strict, [asked], rng).values()
        if not found.items:
            continue
        prefixes = trie.paths(np.unique(trie.leaf_of_item[[item.item for item in found.items]]))[:, :-1]
        assert np.isin(prefixes, engine.slots.last_beams.find("user", trie)).all()
        used = sum(found.usage.used_by.values())
        assert used <= found.usage.drafted_nodes
        if found.usage.target_forwards == 1:
            assert used >= len(np.unique(prefixes))
            early += exact.usage.target_forwards > 1
    assert early > 3


@pytest.mark.parametrize("taken", ["reserved", "blend", "caps", "explain", None])
def test_a_list_says_whether_its_tolerance_was_used(speculation: Speculation, taken: str | None) -> None:
    trie, items, tolerance = speculation.tries[3], np.arange(6), Tolerance(items=1)
    options: dict[str, Any] = {
        "reserved": ReservedPlaces(2, ItemSet.of(np.arange(ITEMS) % 2 == 0)),
        "blend": Blend.of(trie, items, np.ones(6), 0.5),
        "caps": caps_of({"shelf": [item % 5 for item in range(ITEMS)]}, {"shelf": 2}),
        "explain": 1,
    }
    request = BeamRequest("one", np.array([1, 5, 7]), 4, 6, tolerance=tolerance)
    asked = request if taken is None else replace(request, **{taken: options[taken]})
    (found,) = run(speculation.engine(3), [asked], np.random.default_rng(0)).values()
    assert found.tolerance == (tolerance if taken is None else None)


def test_sampled_lists_have_no_tolerance(speculation: Speculation) -> None:
    with pytest.raises(ValueError, match="Only strict lists"):
        BeamRequest("one", np.array([1]), 2, 2, rule=SearchRule(Verification.GUMBEL), tolerance=Tolerance(items=1))
    with pytest.raises(ValueError, match="A tolerance is"):
        Tolerance(mass=1.0)
