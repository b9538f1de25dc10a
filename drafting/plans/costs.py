"""Costs of forwards on this machine, and the values of levels at these costs.

Invariant: costs are seconds of wall-clock time as a user waits for them, so all that a forward needs (preparing it, reading its results)
is inside; two numbers measured in different ways cannot be weighed against each other. Every price and gain of a level is one request's
own, its part of what requests share; so levels can be added up and plans compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from drafting.array_types import DoubleArray

SHORTEST = 1e-9
NOTEWORTHY = 0.1
# A bend is believed if it leaves at most this share of a straight line's squared error, and the line is off by as much as `NOTEWORTHY`.
BEND_SHARE = 0.25
BENDS_TRIED = 64
# The certainties for which the draft's beam is valued beforehand; values between them are interpolated.
CERTAINTIES: DoubleArray = np.linspace(0, 1, 21)


@dataclass(frozen=True)
class CostCurve:
    """Seconds of a forward: `fixed + per_token * max(tokens - free, 0)`.

    While a device reads its weights it can compute some tokens in the same time: few on a CPU, where the curve is a straight line and
    `free` is 0, some hundred on a GPU.
    """

    fixed: float
    per_token: float
    free: float = 0.0

    def __post_init__(self) -> None:
        if not (self.fixed >= 0 and self.per_token >= 0):
            raise ValueError(f"A forward cannot take negative time, got {self.fixed} s and {self.per_token} s per token.")
        if not self.free >= 0:
            raise ValueError(f"A forward cannot have {self.free} free tokens.")

    @classmethod
    def fit(cls, tokens: Sequence[int], seconds: Sequence[float]) -> "CostCurve":
        """The curve through measured forwards that is closest in relative terms, so that long forwards do not drown the short ones.

        It is a straight line unless that is plainly wrong: with so few sizes, noise alone would bend most lines a little.

        Raises:
            ValueError: fewer than two sizes were measured.
        """
        sizes = sorted(set(tokens))
        if len(sizes) < 2:
            raise ValueError("A cost curve needs forwards of at least two sizes.")
        straight = cls._fit(tokens, seconds, 0.0)
        error = straight._error(tokens, seconds)
        # Two sizes at least must lie beyond the bend, and two before it, or it could be anywhere.
        if len(sizes) < 4 or error < len(tokens) * (NOTEWORTHY / 2) ** 2:
            return straight
        bends = np.geomspace(max(sizes[1], 1), sizes[-2], BENDS_TRIED, endpoint=False)
        bent = min((cls._fit(tokens, seconds, float(free)) for free in bends), key=lambda curve: curve._error(tokens, seconds))
        return bent if bent._error(tokens, seconds) < BEND_SHARE * error else straight

    @classmethod
    def _fit(cls, tokens: Sequence[int], seconds: Sequence[float], free: float) -> "CostCurve":
        weights = 1 / np.array(seconds)
        design = np.stack([np.ones(len(tokens)), np.maximum(np.array(tokens, float) - free, 0)], axis=1)
        (fixed, per_token), *_ = np.linalg.lstsq(design * weights[:, None], np.ones(len(tokens)), rcond=None)
        return cls(max(float(fixed), 0.0), max(float(per_token), 0.0), free)

    def _error(self, tokens: Sequence[int], seconds: Sequence[float]) -> float:
        """The sum of squared relative errors."""
        return sum((self.seconds(count) / taken - 1) ** 2 for count, taken in zip(tokens, seconds, strict=True))

    def seconds(self, tokens: float) -> float:
        """Seconds of a forward of so many tokens."""
        return self.fixed + self.per_token * max(tokens - self.free, 0.0)

    def tokens_within(self, seconds: float) -> float:
        """The number of tokens of a forward that takes `seconds`; 0 if a forward without tokens takes longer."""
        if seconds < self.fixed:
            return 0.0
        return self.free + (seconds - self.fixed) / self.per_token if self.per_token else float("inf")

    def mean_per_token(self, tokens: int) -> float:
        """Mean seconds of a token in a forward of so many tokens, without the fixed part."""
        return (self.seconds(tokens) - self.fixed) / tokens

    def differs(self, other: "CostCurve", by: float) -> bool:
        """True if the curves differ by more than a share, `by`, for a small or for a large forward, so that plans may differ."""
        large = 256 + self.free
        return any(abs(self.seconds(tokens) / max(other.seconds(tokens), SHORTEST) - 1) > by for tokens in (1, large))

    def __str__(self) -> str:
        beyond = f" beyond the first {self.free:.0f}" if self.free else ""
        return f"{1e3 * self.fixed:.2f} ms + {1e6 * self.per_token:.1f} µs a token{beyond}"


@dataclass(frozen=True)
class ForwardCosts:
    """Costs of the parts of a step.

    Attributes:
        target: cost of a forward of the target, with preparation and reading of results.
        draft: cost of a forward of the draft, with preparation and reading of results; None without a draft.
        children: seconds to draft the children of a level for one request, without the target's tokens.
        further_children: seconds by which `children` grows with each further request of the same step.
        level: seconds to verify one more level in a step.
        last: seconds that a search takes, apart from forwards, for its user's last list: finding and weighing it, learning what
            it was worth, and keeping what the next search will find.
    """

    target: CostCurve
    draft: CostCurve | None = None
    children: float = 0.0
    level: float = 0.0
    last: float = 0.0
    further_children: float = 0.0

    def children_of_each(self, requests: int) -> float:
        """Seconds to draft the children of a level, for each of so many requests that do so together."""
        return self.children_together(1, requests) / requests

    def children_together(self, times: int, requests: int) -> float:
        """Seconds to draft children `times` times, for `requests` requests in all."""
        return times * self.children + (requests - times) * self.further_children


@dataclass(frozen=True)
class LevelValues:
    """The values of the levels below a state of a round.

    Attributes:
        savings: for each depth, the seconds that are saved if the level is accepted.
        computed: for each depth, the seconds in which the target computes the whole beam of the level. A level that is rejected saves the
            share of these that its drafted prefixes have: they are not computed again.
        beam: for each (depth, levels above it in the round), the seconds that the draft's beam is worth at each of `CERTAINTIES`; empty
            without a draft.
        bonus: for each (depth, levels above it in the round), the index of the bonus in `acceptance.BONUSES` that is worth most; empty
            without a draft.
        fan_out: for each depth, the mean number of children of a prefix.
        children_cost: seconds to draft the children of a level, for one search.
        token: seconds that each token beyond the free ones adds to a forward of the target.
        room: number of nodes of each level that are free.
        draft_token: seconds that each token beyond the free ones adds to a forward of the draft.
        draft_room: number of a search's tokens that are free in a forward of the draft.
        last_depth: the deepest level that is drafted.
        further: for each depth, the seconds that a search wins after a plain step to it. Those of a round count from a plain step, after
            which the next round is to come; so it is the sum over one round for each level below, in its best way.
        given: for each (depth, levels above it in the round), the seconds that given drafts win from there on if all levels above are
            accepted; empty without given drafts.
        weighed: for each (depth, nodes), what `weigh` has answered at the beginning of rounds.
        given_up: for each depth at which a round begins, whether nothing is worth drafting in all later rounds.
    """

    savings: dict[int, float]
    computed: dict[int, float]
    beam: dict[tuple[int, int], DoubleArray]
    bonus: dict[tuple[int, int], int]
    fan_out: tuple[float, ...]
    children_cost: float
    token: float
    room: float
    draft_token: float
    draft_room: float
    last_depth: int
    further: dict[int, float] = field(default_factory=dict)
    given: dict[tuple[int, int], float] = field(default_factory=dict)
    weighed: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)
    given_up: dict[int, bool] = field(default_factory=dict)

    def price(self, nodes: DoubleArray) -> DoubleArray:
        """Seconds that so many nodes of a level add to the target's forward."""
        return self.token * np.maximum(nodes - self.room, 0)

    def draft_price(self, tokens: DoubleArray | float) -> DoubleArray:
        """Seconds that so many tokens add to a forward of the draft."""
        return self.draft_token * np.maximum(tokens - self.draft_room, 0)

    def weigh(self, depth: int, levels: int, certainty: float, nodes: int) -> tuple[float, float]:
        """Seconds won by drafting the level `depth` by all children, and by the draft's beam; kept for the beginnings of other rounds."""
        if levels == 0 and (depth, nodes) in self.weighed:
            return self.weighed[depth, nodes]
        certain, many = np.array([certainty]), np.array([float(nodes)])
        weight = float(self.children(depth, certain, many)[0]), float(self.by_beam(depth, levels, certain, many)[0])
        if levels == 0:
            self.weighed[depth, nodes] = weight
        return weight

    def children(self, depth: int, certainty: DoubleArray, nodes: DoubleArray) -> DoubleArray:
        """Seconds won by drafting all children of `nodes` prefixes as the level `depth`, and further levels by children where that pays."""
        if depth > self.last_depth:
            return np.zeros_like(nodes)
        grown = nodes * self.fan_out[depth - 1]
        won: DoubleArray = certainty * self.savings[depth] - self.price(grown) - self.children_cost
        won += np.maximum(0, self.children(depth + 1, certainty, grown))
        return won

    def best(self, depth: int, levels: int, certainty: DoubleArray, nodes: DoubleArray) -> DoubleArray:
        """Seconds won by the best way to go on below a level, of which stopping is one."""
        if depth > self.last_depth:
            return np.zeros_like(nodes)
        won: DoubleArray = np.maximum(self.children(depth, certainty, nodes), self.by_beam(depth, levels, certainty, nodes))
        return np.maximum(won, certainty * self.stopping(depth))

    def stopping(self, depth: int) -> float:
        """Seconds won by drafting nothing from a level on: what given drafts win there, if all levels above are accepted.

        Where levels above were drafted, given drafts may not hold them, so they count as they do at the beginning of a round.
        """
        return self.given.get((depth, 0), 0.0)

    def by_beam(self, depth: int, levels: int, certainty: DoubleArray, nodes: DoubleArray) -> DoubleArray:
        """Seconds won by asking the draft for the level `depth`."""
        if (depth, levels) not in self.beam:
            return np.full_like(nodes, -np.inf)
        won: DoubleArray = np.interp(certainty, CERTAINTIES, self.beam[depth, levels]) - self.draft_price(nodes)
        return won


def room_of_level(free: float, levels: int) -> float:
    """Free nodes of each level, if `levels` levels share `free`; a power of two, so that batches of about one size share values."""
    return 2.0 ** math.floor(math.log2(free / levels)) if free >= levels else 0.0
