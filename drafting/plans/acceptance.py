"""Statistics of acceptance: how many of the draft's proposals are needed for the target to accept a level, and how often given drafts do.

The draft's proposals for a level are placed by their *gap*: how far a score lies below the draft's k-th best. The target's beam asks for a
certain gap, that of the lowest proposal in it; drafting everything within a gap g accepts the level exactly when that is at most g. The
distribution of the wanted gap is learned; how many proposals a gap means is different for every request, narrow where the draft is sure.
Where a list may differ from the exact one, it asks for the gap beyond which the missing take no more than its part of the tolerance.
Prefixes that given drafts hold ask for none. What these alone would have accepted is known of every level that the target selects, whether
they were in the tree or not, so nothing has to be tried.

What the target kept when it was last asked for a user is also a reason to believe a proposal of the draft. So those proposals are ranked
with a *bonus*. How large it should be depends on how good the draft is, so the statistics are kept for some bonuses side by side, which
again needs no trial: a level says of each what it would have wanted.
Invariant: statistics are bounded, forget slowly and start from a prior, so a planner can use them before any level was seen.
"""

from dataclasses import dataclass, field

import numpy as np

from drafting.array_types import BoolArray, DoubleArray, FloatArray, IntArray
from drafting.plans.given import Given
from drafting.plans.plan import LevelOutcome

# Gaps in nats, an eighth apart and then a quarter (`first_gaps`); beyond the last, a draft is as good as wrong.
GAPS: DoubleArray = np.concatenate([np.linspace(0, 4, 33), np.linspace(4.25, 12, 32)])
# Nats by which the scores of proposals may be raised that the target kept when it was last asked for the user.
BONUSES: DoubleArray = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0])
# Scores closer than this are equal.
ROUNDING = 1e-5
MEMORY = 2000.0
PRIOR_WEIGHT = 3.0
# An optimistic prior, because what is never tried is never learned; a few levels correct it.
PRIOR: DoubleArray = 0.97 - 0.97 * np.exp(-(GAPS + 0.3) / 0.5)


@dataclass(frozen=True)
class Expected:
    """What to expect if all proposals within each gap are drafted, `[bonuses, gaps]` or `[gaps]` each.

    Attributes:
        chances: the chance that the level is accepted.
        kept: the share of the target's beam that is among the drafted.
        counts: the number of proposals that are drafted.
        new: the number of those that are not in the tree yet.
    """

    chances: DoubleArray
    kept: DoubleArray
    counts: DoubleArray
    new: DoubleArray

    def with_bonus(self, bonus: int) -> "Expected":
        """The same for one bonus, `[gaps]` each; `bonus` is its index in `BONUSES`."""
        return Expected(self.chances[bonus], self.kept[bonus], self.counts[bonus], self.new[bonus])


@dataclass
class WantedGaps:
    """Statistics of one kind of level.

    Attributes:
        prior: `[bonuses, gaps]` or `[1, gaps]`, before anything was seen the chance that a level wants no more than each gap.
        has_bonus: True if proposals may be ranked with each of `BONUSES`; False if with the first alone, which is 0.
        seen: number of levels seen; old ones count less.
        within: `[bonuses, gaps]`, how many of the levels seen wanted no more than each gap.
        kept: `[bonuses, gaps]`, the mean share of the target's beam that is within each gap or given.
        counts: `[bonuses, gaps]`, the mean number of proposals within each gap; None before anything was seen.
        new: `[bonuses, gaps]`, the mean number of these that are not among the given drafts in the tree; None before anything was seen.
    """

    prior: DoubleArray
    has_bonus: bool = False
    seen: float = 0.0
    within: DoubleArray = field(init=False)
    kept: DoubleArray = field(init=False)
    counts: DoubleArray | None = None
    new: DoubleArray | None = None

    def __post_init__(self) -> None:
        self.within = np.zeros((len(self._bonuses), len(GAPS)))
        # Where a level is accepted, all of the beam was drafted.
        self.kept = self.within + self.prior

    def expected(self, k: int) -> Expected:
        """What to expect of a level of this kind; before any was seen, counts are guessed to grow with the gap."""
        chances: DoubleArray = (PRIOR_WEIGHT * self.prior + self.within) / (PRIOR_WEIGHT + self.seen)
        counts = np.tile(k * (1 + 1.5 * GAPS), (len(self._bonuses), 1)) if self.counts is None else self.counts
        return Expected(np.broadcast_to(chances, self.within.shape), self.kept, counts, counts if self.new is None else self.new)

    def learn(self, outcome: LevelOutcome, first: IntArray, source: Given = Given.NONE) -> None:
        """Add one level, with drafts of `source` in the tree; `first` are its `first_gaps`."""
        if self.seen >= MEMORY:
            self.seen, self.within = self.seen / 2, self.within / 2
        first, ranks = first[: len(self.within)], outcome.ranks
        counts = new = _counts(first)
        shares = outcome.shares
        if source is not Given.NONE:
            ranks = ranks[~outcome.covered[source]]
            shares = None if shares is None else shares[~outcome.covered[source]]
            new = _counts(first[:, ~outcome.held[source][: first.shape[1]]])
        wanted = np.full((len(first), len(ranks)), len(GAPS))
        wanted[:, ranks >= 0] = first[:, ranks[ranks >= 0]]
        kept = 1 - (len(ranks) - _counts(wanted)) / len(outcome.ranks)
        share = 1 / (1 + min(self.seen, 200))
        self.counts = counts if self.counts is None else self.counts + share * (counts - self.counts)
        self.new = new if self.new is None else self.new + share * (new - self.new)
        self.kept = self.kept + share * (kept - self.kept)
        self.seen += 1
        most = wanted.max(1, initial=0) if shares is None else _tolerated(wanted, shares)
        self.within = self.within + (np.arange(len(GAPS)) >= most[:, None])

    @property
    def _bonuses(self) -> DoubleArray:
        return BONUSES if self.has_bonus else BONUSES[:1]


@dataclass
class Coverage:
    """How often the given drafts alone hold all of the target's beam, for one kind of level.

    Attributes:
        seen: number of levels seen; old ones count less.
        covered: how many of them the given drafts held.
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


def first_gaps(outcome: LevelOutcome) -> IntArray:
    """`[bonuses, proposals]`, the index of the first gap that each proposal lies within, for each bonus; `len(GAPS)` if it is beyond all.

    There is one row where no proposal can have a bonus.
    """
    real = int(np.count_nonzero(np.isfinite(outcome.scores)))
    scores = outcome.scores[None, :real].astype(float)
    if Given.LAST in outcome.held:
        scores = scores + (BONUSES[:, None] - outcome.bonus) * outcome.held[Given.LAST][:real]
    if not real:
        return np.empty(scores.shape, np.int64)
    below = max(real - len(outcome.ranks), 0)
    gaps = np.partition(scores, below)[:, below : below + 1] - scores - ROUNDING
    first: IntArray = np.ceil(np.minimum(8 * gaps, 4 * gaps + 16)).clip(0, len(GAPS)).astype(np.int64)
    return first


def within_gaps(scores: FloatArray, k: int) -> IntArray:
    """`[gaps]`, how many proposals lie within each gap below the k-th best; `scores` are `[proposals]`, best first, -inf pads."""
    real = scores[np.isfinite(scores)]
    if not len(real):
        return np.zeros(len(GAPS), np.int64)
    kth = real[min(k, len(real)) - 1]
    counts: IntArray = np.searchsorted(-real, GAPS - kth + ROUNDING, side="right")
    return counts


def new_within(counts: IntArray, new: BoolArray | None) -> DoubleArray:
    """`[gaps]`, how many of the `counts` best proposals are new; `new` is `[proposals]`, None if all are."""
    if new is None:
        return counts.astype(float)
    found: DoubleArray = np.append(0.0, np.cumsum(new))[counts]
    return found


def _tolerated(wanted: IntArray, shares: DoubleArray) -> IntArray:
    """`[bonuses]`, the least gap for which the prefixes beyond it together take no more than the level's part of a tolerance.

    Args:
        wanted: `[bonuses, n]`, the gap that each prefix asks for.
        shares: `[n]`, the share of that part that each prefix takes if it is missing.
    """
    order = np.argsort(-wanted, axis=1, kind="stable")
    spared = (shares[order].cumsum(1) <= 1 + ROUNDING).sum(1, keepdims=True)
    # Where all are spared, no gap is wanted.
    sorted_gaps = np.pad(np.take_along_axis(wanted, order, 1), ((0, 0), (0, 1)))
    found: IntArray = np.take_along_axis(sorted_gaps, spared, 1)[:, 0]
    return found


def _counts(first: IntArray) -> DoubleArray:
    """`[bonuses, gaps]`, how many of n prefixes lie within each gap; `first` is `[bonuses, n]`, as of `first_gaps`."""
    bins = len(GAPS) + 1
    places = (first + bins * np.arange(len(first))[:, None]).ravel()
    counts: DoubleArray = np.bincount(places, minlength=bins * len(first)).reshape(-1, bins)[:, :-1].cumsum(1).astype(float)
    return counts
