"""Statistics of acceptance: the gaps that levels want, with and without what is given beside the draft."""

from dataclasses import replace

import numpy as np
import pytest

from drafting.beam.rule import Tolerance
from drafting.plans.acceptance import BONUSES, GAPS, MEMORY, WantedGaps, first_gaps, within_gaps
from drafting.plans.given import Given
from drafting.plans.plan import LevelOutcome


def proposals(spacing: float) -> np.ndarray:
    return np.full(256, -1.0, np.float32) - spacing * np.arange(256, dtype=np.float32)


def outcome(depth: int, worst_rank: int, levels: int = 0, spacing: float = 0.1) -> LevelOutcome:
    ranks = np.append(np.arange(9), worst_rank)
    return LevelOutcome(depth, ranks, proposals(spacing), levels)


def learn(gaps: WantedGaps, level: LevelOutcome) -> None:
    gaps.learn(level, first_gaps(level))


def test_a_level_is_accepted_within_the_gap_of_its_worst_prefix() -> None:
    gaps = WantedGaps(np.zeros((1, len(GAPS))))
    for _ in range(400):
        learn(gaps, outcome(1, worst_rank=14))
    chances = gaps.expected(10).chances[0]
    # Ranks are 0.1 nats apart and the tenth is where gaps begin: rank 14 is 0.5 nats below it.
    assert chances[GAPS < 0.49].max() < 0.02
    assert chances[GAPS > 0.51].min() > 0.97
    counts = within_gaps(proposals(0.1), 10)
    assert counts[np.searchsorted(GAPS, 0.51)] in (15, 16)
    np.testing.assert_allclose(gaps.expected(10).counts[0], counts)


def test_a_level_of_a_list_with_a_tolerance_wants_the_gap_beyond_which_it_may_miss_what_it_misses() -> None:
    """Against every gap tried; prefixes that nobody proposed lie beyond all gaps."""
    rng, spared = np.random.default_rng(0), 0
    for _ in range(200):
        ranks = np.where(rng.random(10) < 0.1, -1, rng.permutation(120)[:10])
        level = LevelOutcome(1, ranks, proposals(0.1), 0, tolerance=Tolerance(4), shares=rng.random(10) * rng.choice([0.1, 0.5, 2.0]))
        first, gaps = first_gaps(level), WantedGaps(np.zeros((1, len(GAPS))))
        gaps.learn(level, first)
        beyond = np.where(ranks < 0, len(GAPS), first[0, ranks])
        least = next(gap for gap in range(len(GAPS) + 1) if level.shares[beyond > gap].sum() <= 1)
        np.testing.assert_array_equal(gaps.within[0], np.arange(len(GAPS)) >= least)
        spared += least < beyond.max()
    assert 20 < spared < 180


def test_what_was_learned_is_bounded_and_forgets() -> None:
    gaps = WantedGaps(np.zeros((1, len(GAPS))))
    for _ in range(3000):
        learn(gaps, outcome(1, worst_rank=200))
    assert gaps.seen <= MEMORY
    for _ in range(3000):
        learn(gaps, outcome(1, worst_rank=9))
    assert gaps.expected(10).chances[0, 0] > 0.6


def test_a_prefix_that_nobody_proposed_wants_an_endless_gap() -> None:
    gaps = WantedGaps(np.ones((1, len(GAPS))))
    learn(gaps, LevelOutcome(1, np.array([0, -1]), proposals(0.1), 0))
    assert gaps.within.max() == 0


def kept_before(rng: np.random.Generator, helps: bool) -> LevelOutcome:
    """Of ten prefixes that the target keeps, six are the draft's best and four far down; what it kept before holds these, or others."""
    far = np.sort(40 + rng.permutation(60)[:4])
    held = np.zeros(256, bool)
    held[far if helps else 100 + rng.permutation(60)[:20]] = True
    ranks = np.append(np.arange(6), far)
    return LevelOutcome(1, ranks, proposals(0.05), 0, covered={Given.LAST: held[ranks]}, held={Given.LAST: held})


@pytest.mark.parametrize("bonus", BONUSES.tolist())
def test_a_level_teaches_the_same_whatever_bonus_it_was_drafted_with(bonus: float) -> None:
    level = kept_before(np.random.default_rng(1), helps=True)
    scores = level.scores + np.float32(bonus) * level.held[Given.LAST]
    order = np.argsort(-scores, kind="stable")
    ranks = np.argsort(order)[level.ranks]
    raised = replace(level, ranks=ranks, scores=scores[order], held={Given.LAST: level.held[Given.LAST][order]}, bonus=bonus)
    gaps = [WantedGaps(np.zeros((1, len(GAPS))), has_bonus=True) for _ in range(2)]
    for each, told in zip(gaps, (level, raised), strict=True):
        learn(each, told)
        # By hand, for each bonus: how many are drafted within the gap, and which part of the beam.
        for row, other in enumerate(BONUSES):
            by_score = level.scores.astype(float) + other * level.held[Given.LAST]
            within = by_score[:, None] >= np.sort(by_score)[-10] - GAPS - 1e-4
            np.testing.assert_array_equal(each.expected(10).counts[row], within.sum(0))
            np.testing.assert_allclose(each.kept[row], within[level.ranks].mean(0))
            np.testing.assert_array_equal(each.within[row], within[level.ranks].all(0))


def test_what_given_drafts_hold_is_wanted_of_nobody_and_costs_nothing() -> None:
    level = kept_before(np.random.default_rng(2), helps=True)
    gaps = WantedGaps(np.zeros((1, len(GAPS))))
    gaps.learn(level, first_gaps(replace(level, held={})), Given.LAST)
    assert gaps.within[0].all(), "the six that are not given are the best"
    held = level.held[Given.LAST]
    counts = gaps.expected(10).counts[0].astype(int)
    np.testing.assert_array_equal(gaps.expected(10).new[0], [np.count_nonzero(~held[:count]) for count in counts])
