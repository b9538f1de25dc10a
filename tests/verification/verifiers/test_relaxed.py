"""Relaxed verification against algorithm 2 written out, one request and one continuation at a time."""

import math

import numpy as np
import pytest
import torch

from drafting.array_types import BoolArray, FloatArray
from drafting.beam.rule import SearchRule, Verification
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.plan import Action, DraftRound, Plan
from tests.speculation import Speculation, run
from verification.request import BeamRequest
from verification.verifiers.relaxed import LevelNoise, verify_relaxed


class Asks(Plan):
    """Asks the draft for so many proposals of each of the first levels, and drafts nothing below them."""

    name = "asks"

    def __init__(self, *takes: int) -> None:
        self._takes = takes

    def action(self, state: DraftRound, has_draft: bool) -> Action:
        return Action.BEAM if state.levels < len(self._takes) and state.next_depth <= state.last_depth else Action.STOP

    def width(self, state: DraftRound, scores: FloatArray | None, new: BoolArray | None) -> int:
        return self._takes[state.levels]


def algorithm_2(
    target: list[float], draft: list[float], drafted: list[bool], accept: list[float], keep: list[float], residual: list[float], k: int
) -> set[int]:
    """The chosen continuations, in plain Python."""

    def softmax(log_probs: list[float]) -> list[float]:
        weights = [math.exp(value) if value > -math.inf else 0.0 for value in log_probs]
        return [weight / sum(weights) if sum(weights) else 0.0 for weight in weights]

    p, q = softmax(target), softmax(draft)
    eligible = [place for place in range(len(p)) if target[place] > -math.inf]
    accepted = [place for place in eligible if drafted[place] and q[place] > 0 and accept[place] <= p[place] / q[place]]
    if len(accepted) >= k:
        return set(sorted(accepted, key=lambda place: -keep[place])[:k])
    chosen = list(accepted)
    left = {place: max(0.0, p[place] - q[place]) for place in eligible if place not in accepted}
    while len(chosen) < min(k, len(eligible)):
        # A draw without replacement: the largest of log-probability plus Gumbel noise; from p where nothing of the residual is left.
        weights = left if any(left.values()) else {place: p[place] for place in left}
        drawn = max((place for place in weights if weights[place] > 0), key=lambda place: math.log(weights[place]) + residual[place])
        chosen.append(drawn)
        del left[drawn]
    return set(chosen)


def test_equals_algorithm_2_given_the_same_random_numbers() -> None:
    rng = np.random.default_rng(0)
    drew_from_p = kept_at_random = 0
    for case in range(500):
        places, requests = int(rng.integers(1, 40)), 3
        widths = rng.integers(1, 12, requests)
        k = int(widths.max())
        target = np.log(rng.dirichlet(np.full(places, 0.3), requests) + 1e-12)
        draft = np.log(rng.dirichlet(np.full(places, 0.3), requests) + 1e-12)
        missing = rng.random((requests, places)) < rng.choice([0.0, 0.3, 0.9])
        target[missing] = draft[missing] = -np.inf
        draft[rng.random(requests) < 0.2] = -np.inf
        drafted = (rng.random((requests, places)) < 0.7) & ~missing
        noise = [rng.random((requests, places)), rng.random((requests, places)), rng.gumbel(size=(requests, places))]
        padding = ((0, 0), (0, max(0, k - places)))
        padded = [np.pad(array, padding, constant_values=fill) for array, fill in ((target, -np.inf), (draft, -np.inf), (drafted, False))]
        numbers = LevelNoise(*(torch.from_numpy(np.pad(array, padding)) for array in noise))
        chosen = verify_relaxed(*map(torch.from_numpy, padded), numbers, torch.from_numpy(widths), k).numpy()
        for row in range(requests):
            rows = [array[row].tolist() for array in (target, draft, drafted, *noise)]
            expected = algorithm_2(*rows, int(widths[row]))
            found = chosen[row, : len(expected)]
            assert set(found.tolist()) == expected, case
            assert np.all(np.diff(padded[0][row, found]) <= 0)
            eligible = int((~missing[row]).sum())
            assert len(expected) == min(int(widths[row]), eligible)
            drew_from_p += len(expected) == eligible > 0
            kept_at_random += eligible > widths[row]
    assert drew_from_p > 50
    assert kept_at_random > 50


def test_a_level_without_any_continuation_does_not_raise() -> None:
    nothing = torch.full((2, 3), float("-inf"))
    noise = LevelNoise.of(torch.tensor([1, 2]), torch.zeros(2, 3, dtype=torch.int64))
    assert verify_relaxed(nothing, nothing, torch.zeros(2, 3, dtype=torch.bool), noise, torch.tensor([2, 1]), 2).shape == (2, 2)


def test_what_is_too_unlikely_for_a_float_is_drawn_by_its_probability_too() -> None:
    """As at low temperatures: three of four probabilities are 0 in float64, and that of e^-2000 is far below the others."""
    target = torch.tensor([[0.0, -800.0, -2000.0, -900.0]])
    even = torch.full((1, 4), 0.5, dtype=torch.float64)
    noise = LevelNoise(even, even, torch.tensor([[0.0, 0.0, 30.0, 20.0]], dtype=torch.float64))
    nothing, none_drafted = torch.full_like(target, float("-inf")), torch.zeros(1, 4, dtype=torch.bool)
    for k, expected in ((2, [0, 1]), (3, [0, 1, 3])):
        chosen = verify_relaxed(target, nothing, none_drafted, noise, torch.tensor([k]), k)
        assert chosen.tolist() == [expected]


def test_a_perfect_draft_loses_the_best_continuation() -> None:
    """What makes the rule no sampler: with p = q every drafted continuation is accepted, and a random k of them are kept."""
    draws, places, k = 4000, 40, 5
    log_probs = torch.log(torch.arange(1, places + 1).float() ** -1.3).log_softmax(0).expand(draws, places)
    noise = LevelNoise.of(torch.arange(draws), torch.arange(places).expand(draws, places))
    chosen = verify_relaxed(log_probs, log_probs, torch.ones(draws, places, dtype=torch.bool), noise, torch.full((draws,), k), k)
    kept_best = float((chosen == 0).any(1).float().mean())
    assert abs(kept_best - k / places) < 0.02


def relaxed_lists(
    speculation: Speculation, first: Plan | str, later: Plan | str, *, waits: bool, loses_draft: bool = False
) -> dict[str, list[int]]:
    """Lists whose first round is drafted by one plan and all others by another one, with the draft at hand in these or not."""
    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("verification.verifiers.level.is_async", lambda device: waits)
        engine = speculation.engine(4, first)
    for seed in range(12):
        prompt = np.concatenate([[1], speculation.identifiers[rng.integers(150, size=3)].reshape(-1)])
        engine.add(BeamRequest(str(seed), prompt, 10, 10, rule=SearchRule(Verification.RELAXED, seed, 0.2)))
    found = list(engine.step().finished)
    engine.use_plan(FixedPlan.parse(later) if isinstance(later, str) else later)
    if loses_draft:
        engine.drop_draft()
    while engine.running:
        found += engine.step().finished
    return {result.request_id: [item.item for item in result.items] for result in found}


@pytest.mark.parametrize("waits", [False, True])
def test_a_draft_that_is_asked_and_of_which_nothing_is_taken_changes_no_list(speculation: Speculation, waits: bool) -> None:
    plain = relaxed_lists(speculation, "none", "none", waits=waits)
    assert relaxed_lists(speculation, Asks(0), Asks(0), waits=waits) == plain
    assert relaxed_lists(speculation, Asks(0), "trie", waits=waits) == plain


@pytest.mark.parametrize("waits", [False, True])
def test_only_what_the_draft_has_proposed_in_a_round_is_its_sample(speculation: Speculation, waits: bool) -> None:
    """What it was asked in an earlier round counts no more, be there children in the tree, what that round has left, or both."""
    first = Asks(9, 30, 30)
    without = relaxed_lists(speculation, first, "none", waits=waits, loses_draft=True)
    assert without != relaxed_lists(speculation, "none", "none", waits=waits)
    for later in ("none", "trie", Asks(0)):
        assert relaxed_lists(speculation, first, later, waits=waits) == without


@pytest.mark.parametrize("verification", Verification)
def test_what_the_draft_says_takes_memory_for_relaxed_lists_alone(speculation: Speculation, verification: Verification) -> None:
    engine, rng = speculation.engine(4, "beam:12"), np.random.default_rng(0)
    results = run(engine, speculation.requests(6, rng, SearchRule(verification, seed=1)), rng)
    assert any(result.usage.draft_forwards for result in results.values())
    assert engine._drafting.drafter is not None
    assert (engine._drafting.drafter._log_probs is None) == (verification is not Verification.RELAXED)
