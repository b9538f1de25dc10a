"""Statistics of acceptance: how many of the draft's proposals are needed for the target to accept a level, and how often given drafts do.

The draft's proposals for a level are placed by their *gap*: how far a score lies below the draft's k-th best. The target's beam asks for a
certain gap, that of the lowest proposal in it; drafting everything within a gap g accepts the level exactly when that is at most g. The
distribution of the wanted gap is learned; how many proposals a gap means is different for every request, narrow where the draft is sure.
Prefixes that given drafts hold ask for none. What these alone would have accepted is known of every level that the target selects, whether
they were in the tree or not, so nothing has to be tried.
Invariant: statistics are bounded, forget slowly and start from a prior, so a planner can use them before any level was seen.
"""

from dataclasses import dataclass, field

import numpy as np

from drafting.array_types import DoubleArray, FloatArray, IntArray
from drafting.plans.given import Given
from drafting.plans.plan import LevelOutcome

# Gaps in nats; beyond the last, a draft is as good as wrong.
GAPS: DoubleArray = np.concatenate([np.linspace(0, 4, 33), np.linspace(4.25, 12, 32)])
MEMORY = 2000.0
PRIOR_WEIGHT = 3.0
# An optimistic prior, because what is never tried is never learned; a few levels correct it.
PRIOR: DoubleArray = 0.95 - 0.95 * np.exp(-(GAPS + 0.3) / 0.8)


@dataclass
class WantedGaps:
    """Statistics of one kind of level.

    Attributes:
        prior: `[gaps]` chance that the wanted gap is within each gap, before anything was seen.
        seen: number of levels seen; old ones count less.
        within: `[gaps]` how many of them wanted no more than each gap.
        counts: `[gaps]` the mean number of proposals within each gap.
    """

    prior: DoubleArray
    seen: float = 0.0
    within: DoubleArray = field(default_factory=lambda: np.zeros(len(GAPS)))
    counts: DoubleArray | None = None

    def chances(self) -> DoubleArray:
        """`[gaps]` chance that drafting everything within each gap accepts the level."""
        chances: DoubleArray = (PRIOR_WEIGHT * self.prior + self.within) / (PRIOR_WEIGHT + self.seen)
        return chances

    def mean_counts(self, k: int) -> DoubleArray:
        """`[gaps]` how many proposals lie within each gap on average; before anything was seen, a guess that grows with the gap."""
        return k * (1 + 2 * GAPS) if self.counts is None else self.counts

    def learn(self, outcome: LevelOutcome, source: Given = Given.NONE) -> None:
        """Add one level, with drafts of `source` in the tree."""
        ranks = outcome.ranks if source is Given.NONE else np.where(outcome.covered[source], 0, outcome.ranks)
        if self.seen >= MEMORY:
            self.seen, self.within = self.seen / 2, self.within / 2
        counts = within_gaps(outcome.scores, len(outcome.ranks)).astype(float)
        share = 1 / (1 + min(self.seen, 200))
        self.counts = counts if self.counts is None else self.counts + share * (counts - self.counts)
        self.seen += 1
        if (ranks >= 0).all():
            self.within += counts > ranks.max()


@dataclass
class Coverage:
    """How often given drafts alone hold the target's beam of one kind of level.

    Attributes:
        seen: number of levels seen; old ones count less.
        covered: how many of them were held.
    """

    seen: float = 0.0
    covered: float = 0.0

    def learn(self, covered: bool) -> None:
        """Add one level."""
        if self.seen >= MEMORY:
            self.seen, self.covered = self.seen / 2, self.covered / 2
        self.seen += 1
        self.covered += covered

    @property
    def chance(self) -> float:
        """The chance that a level is held; careful before anything was seen, because it is learned without being tried."""
        return self.covered / (PRIOR_WEIGHT + self.seen)


def within_gaps(scores: FloatArray, k: int) -> IntArray:
    """`[gaps]` how many of the proposals lie within each gap of the k-th best; `scores` are `[proposals]`, best first, -inf pads."""
    real = scores[np.isfinite(scores)]
    if not len(real):
        return np.zeros(len(GAPS), np.int64)
    floor = real[min(k, len(real)) - 1] - GAPS
    counts: IntArray = np.searchsorted(-real, -floor, side="right")
    return counts
