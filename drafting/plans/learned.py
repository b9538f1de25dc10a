"""What a planner has learned of the searches so far: which drafts the target accepts, and how many children prefixes have.

Invariant: searches that share statistics are alike in what decides acceptance (how drafts are verified, which are given, about how many
prefixes are kept), and statistics of a new kind begin with what is known of the nearest one. All of it holds for any machine, because no
costs are in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from operator import or_

import numpy as np

from drafting.beam.rule import Tolerance, Verification
from drafting.lru import LruMap
from drafting.plans.acceptance import PRIOR, Coverage, WantedGaps, first_gaps
from drafting.plans.given import Given, GivenOutcome
from drafting.plans.plan import LevelOutcome

# What was learned is looked at anew when it has grown by this share, and at the latest after so many levels.
REFRESH_SHARE = 0.1
REFRESH_EVERY = 256
# How much a new count of children weighs against the mean of the earlier ones.
FAN_OUT_SHARE = 0.05
# About so many levels of a step are learned from: those of large batches say much the same, and each takes time.
LEARNED_AT_ONCE = 16
LEVEL_KINDS = 3
# Requests choose widths and tolerances, so their kinds are bounded; what was used longest ago is forgotten.
MOST_GAPS = 2048

# What searches that share statistics have in common: how drafts are verified, the sources offered, those in the tree, and about how far
# lists may differ (`nearness`).
GapKind = tuple[Verification, Given, Given, tuple[float, float] | None]


@dataclass
class Learned:
    """Statistics of all searches.

    Attributes:
        fan_out: for each depth, a first guess at the number of children of a prefix.
    """

    fan_out: Sequence[float]
    _gaps: LruMap[tuple[GapKind, int, int, int], WantedGaps] = field(default_factory=lambda: LruMap(MOST_GAPS))
    _coverage: dict[tuple[Verification, Given, int, int, int], Coverage] = field(default_factory=dict)
    _children: dict[tuple[int, int], float] = field(default_factory=dict)
    _levels: int = 0
    _unused: int = 0
    _turn: int = 0

    def successor(self, fan_out: Sequence[float]) -> "Learned":
        """Statistics for another catalog that share this one's acceptance of drafts, which does not depend on the catalog. Both add to them
        from then on, and must do so in one thread."""
        return Learned(fan_out, self._gaps, self._coverage)

    def refresh(self) -> bool:
        """True if so much was learned since this was last true that plans may differ."""
        if self._unused <= min(REFRESH_EVERY, REFRESH_SHARE * self._levels):
            return False
        self._unused = 0
        return True

    def sample(self, levels: int) -> range:
        """The indices of the step's levels that are learned from: one in so many, beginning with another one each time, so that all depths
        have their turn."""
        apart = max(-(-levels // LEARNED_AT_ONCE), 1)
        self._turn += 1
        return range((self._turn - 1) % apart, levels, apart)

    def learn(self, outcomes: Sequence[LevelOutcome]) -> None:
        """Add what the target selected of the draft's proposals."""
        self._grow(len(outcomes))
        for outcome in outcomes:
            width, offered = len(outcome.ranks), reduce(or_, outcome.covered, Given.NONE)
            first = first_gaps(outcome)
            for source in (Given.NONE, *outcome.covered):
                kind = outcome.verification, offered, source, nearness(outcome.tolerance)
                self.gaps(kind, width, outcome.depth, outcome.levels).learn(outcome, first, source)

    def learn_given(self, outcomes: Sequence[GivenOutcome]) -> None:
        """Add what given drafts were worth, or would have been."""
        self._grow(len(outcomes))
        for outcome in outcomes:
            # A round that had begun at any of the levels above would have come to this one by what is given.
            for levels in range(min(outcome.levels, LEVEL_KINDS - 1) + 1):
                key = outcome.verification, outcome.source, bucket(outcome.width), outcome.depth, levels
                if key not in self._coverage:
                    self._coverage[key] = Coverage()
                self._coverage[key].learn(outcome.covered)

    def learn_children(self, depth: int, width: int, children: float) -> None:
        """Add the mean number of children of some prefixes at `depth`, where the target keeps `width`."""
        known = self.children(depth, width)
        self._grow(1)
        self._children[depth, bucket(width)] = known + FAN_OUT_SHARE * (children - known)

    def children(self, depth: int, width: int) -> float:
        """Mean number of children of a prefix at `depth`, where the target keeps `width`."""
        return self._children.get((depth, bucket(width)), self.fan_out[depth])

    def covered(self, verification: Verification, source: Given, width: int, depth: int, levels: int) -> float:
        """The chance that a level is accepted by the given drafts of `source` alone."""
        key = verification, source, bucket(width), depth, min(levels, LEVEL_KINDS - 1)
        return self._coverage[key].chance if key in self._coverage else 0.0

    def gaps(self, kind: GapKind, width: int, depth: int, levels: int) -> WantedGaps:
        """The statistics of the gaps that a level wants of the draft."""
        levels = min(levels, LEVEL_KINDS - 1)
        key = kind, bucket(width), depth, levels
        if (found := self._gaps.get(key)) is None:
            found = self._gaps.keep(key, self._new_gaps(kind, width, depth, levels))
        return found

    def _new_gaps(self, kind: GapKind, width: int, depth: int, levels: int) -> WantedGaps:
        """New statistics: their prior is what is known of rounds that begin a level nearer, or else of exact lists, or else of searches for
        which less is given."""
        verification, offered, source, tolerance = kind
        nearest: GapKind | None = None
        if levels:
            nearest = kind
        elif tolerance:
            nearest = verification, offered, source, None
        elif offered:
            nearest = verification, offered if source else Given.NONE, Given.NONE, None
        prior = PRIOR[None] if nearest is None else self.gaps(nearest, width, depth, max(levels - 1, 0)).expected(width).chances
        return WantedGaps(prior, Given.LAST in offered)

    def _grow(self, levels: int) -> None:
        self._levels += levels
        self._unused += levels


def nearness(tolerance: Tolerance | None) -> tuple[float, float] | None:
    """A key for tolerances that share statistics: the binary logarithms of both bounds, rounded; -inf for a bound of 0."""
    if tolerance is None:
        return None
    items, mass = (round(math.log2(bound)) if bound else -math.inf for bound in (tolerance.items, tolerance.mass))
    return items, mass


@lru_cache(maxsize=4096)
def bucket(width: int) -> int:
    """A key for beam widths that share statistics."""
    return round(4 * float(np.log2(width)))
