"""The planner: drafts exactly as much as pays on this machine, for this request, at this batch size.

It weighs two things. What a level costs: tokens of the target, a forward of the draft. What it may save: the rounds that an accepted level
makes unnecessary, times the chance that it is accepted (`acceptance`). Searches are planned from the end: the cost of finishing from a beam
at each depth follows from the costs of finishing from the deeper ones, so the value of accepting a level is known before it is drafted.
Within a level nodes are taken best first for as long as the next ones are worth more than their tokens.

Invariant: nothing at all is always among the choices, and a forward that many requests share is worth only their part of it to each; so on
a busy machine drafts shrink, and a draft that the target does not follow is no longer asked.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from drafting.acceptance import PRIOR, WantedGaps, within_gaps
from drafting.costs import ForwardCosts, RunningCurve
from drafting.plan import MOST_PROPOSALS, Action, LevelOutcome, Round, StepTimes

DoubleArray = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.float32]

AUTO = "auto"
# Every so many rounds are planned by first opinions, to notice when what was learned long ago no longer holds.
EXPLORE_EVERY = 128
# What was learned is looked at anew when it has grown by this share, and at the latest after so many levels.
REFRESH_SHARE = 0.1
REFRESH_EVERY = 256
# Of the steps that are run, every so many is timed, and after so many the costs are looked at anew.
TIME_EVERY = 4
LOOK_AT_TIMES_EVERY = 32
# Costs are not known exactly: a round that promises less than this share of a forward may be a loss.
WORTHWHILE = 0.05
CERTAINTIES: DoubleArray = np.linspace(0, 1, 21)
# How much a new count of children weighs against the mean of the earlier ones.
FAN_OUT_SHARE = 0.05
LEVEL_KINDS = 3
MOST_OUTLOOKS = 256


@dataclass(frozen=True)
class _Outlook:
    """What the rest of a round is worth for searches of one kind.

    Attributes:
        savings: by depth, seconds saved when the level is accepted.
        beam: by (depth, levels before it in the round), seconds that the draft's beam is worth at each of `CERTAINTIES`; absent without a
            draft.
        fan_out: by depth of the parents, children per prefix.
        worthwhile: seconds that a round must win for drafting to begin.
        growth: seconds to draft the children of a level.
        token: seconds of one token of the target.
        draft_token: seconds of one token of the draft.
        last_depth: the deepest level that is drafted.
        weighed: by depth and nodes, what `weigh` has answered at the beginning of rounds.
    """

    savings: dict[int, float]
    beam: dict[tuple[int, int], DoubleArray]
    fan_out: tuple[float, ...]
    worthwhile: float
    growth: float
    token: float
    draft_token: float
    last_depth: int
    weighed: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)

    def weigh(self, depth: int, levels: int, certainty: float, nodes: int) -> tuple[float, float]:
        """Seconds won by drafting the level `depth` by children, and by the draft's beam; kept where rounds begin: they begin alike."""
        if levels == 0 and (depth, nodes) in self.weighed:
            return self.weighed[depth, nodes]
        certain, many = np.array([certainty]), np.array([float(nodes)])
        weight = float(self.children(depth, certain, many)[0]), float(self.by_beam(depth, levels, certain, many)[0])
        if levels == 0:
            self.weighed[depth, nodes] = weight
        return weight

    def children(self, depth: int, certainty: DoubleArray, nodes: DoubleArray) -> DoubleArray:
        """Seconds won by drafting all children of `nodes` prefixes as the level `depth`, and further levels where that pays too."""
        if depth > self.last_depth:
            return np.zeros_like(nodes)
        grown = nodes * self.fan_out[depth - 1]
        won: DoubleArray = certainty * self.savings[depth] - self.token * grown - self.growth
        won += np.maximum(0, self.children(depth + 1, certainty, grown))
        return won

    def best(self, depth: int, levels: int, certainty: DoubleArray, nodes: DoubleArray) -> DoubleArray:
        """Seconds won by the best way to go on below a level; 0 for stopping."""
        if depth > self.last_depth:
            return np.zeros_like(nodes)
        won: DoubleArray = np.maximum(self.children(depth, certainty, nodes), self.by_beam(depth, levels, certainty, nodes))
        return won.clip(min=0)

    def by_beam(self, depth: int, levels: int, certainty: DoubleArray, nodes: DoubleArray) -> DoubleArray:
        """Seconds won by asking the draft for the level `depth`."""
        if (depth, levels) not in self.beam:
            return np.full_like(nodes, -np.inf)
        won: DoubleArray = np.interp(certainty, CERTAINTIES, self.beam[depth, levels]) - self.draft_token * nodes
        return won


@dataclass
class Planner:
    """A plan that decides level by level; see the module.

    Attributes:
        costs: of forwards on this machine.
        fan_out: by depth, a first guess at the children of a prefix: `ItemTrie.mean_fan_out`.
        follows_clock: whether the costs follow the steps that are run; else they stay as they are.
    """

    costs: ForwardCosts
    fan_out: Sequence[float]
    follows_clock: bool = False
    _gaps: dict[tuple[str, int, int, int], WantedGaps] = field(default_factory=dict)
    _children: dict[tuple[int, int], float] = field(default_factory=dict)
    _outlooks: dict[tuple[str, tuple[int, ...], int, bool, bool], _Outlook] = field(default_factory=dict)
    _learned: int = 0
    _unused: int = 0
    _rounds: int = 0
    _target_curve: RunningCurve = field(init=False)
    _draft_curve: RunningCurve | None = field(init=False)
    _times: int = 0

    def __post_init__(self) -> None:
        self._target_curve = RunningCurve(self.costs.target)
        self._draft_curve = RunningCurve(self.costs.draft) if self.costs.draft else None

    def successor(self, fan_out: Sequence[float]) -> "Planner":
        """A planner for another catalog on the same machine: it starts with these costs, and with what drafts were accepted so far.

        How often the target follows a draft is a matter of the models, so it holds for other items of identifiers of one length.
        """
        same = len(fan_out) == len(self.fan_out)
        return Planner(self.costs, fan_out, self.follows_clock, deepcopy(self._gaps) if same else {})

    @property
    def name(self) -> str:
        return AUTO

    @property
    def drafts(self) -> bool:
        return True

    @property
    def needs_draft(self) -> bool:
        return False

    @property
    def proposals(self) -> int:
        return MOST_PROPOSALS

    @property
    def learns(self) -> bool:
        return True

    def action(self, place: Round, has_draft: bool) -> Action:
        depth = place.next_depth
        if depth > place.last_depth:
            return Action.STOP
        if not place.levels:
            self._rounds += 1
            place.exploring = self._rounds % EXPLORE_EVERY == 0
        outlook = self._outlook(place, has_draft and self.costs.draft is not None)
        by_children, by_beam = outlook.weigh(depth, place.levels, place.certainty, place.nodes)
        by_beam -= outlook.draft_token * place.unread
        least = 0.0 if place.levels else outlook.worthwhile
        if by_beam > max(by_children, least) and not place.unranked:
            return Action.BEAM
        return Action.CHILDREN if by_children > least else Action.STOP

    def width(self, place: Round, scores: FloatArray) -> int:
        depth = place.next_depth
        outlook, kept = self._outlook(place, True), place.widths[depth]
        chances, counts = self._wanted(place, depth, place.levels).chances(), within_gaps(scores, kept)
        won = self._won(outlook, depth, place.levels, place.certainty * chances, counts.astype(float))
        best = int(won.argmax())
        if won[best] <= 0:
            return 0
        place.certainty *= float(chances[best])
        return int(counts[best])

    def refusal(self, width: int) -> str | None:
        return None

    def learn(self, outcomes: Sequence[LevelOutcome]) -> None:
        self._learned += len(outcomes)
        self._unused += len(outcomes)
        for outcome in outcomes:
            self._gaps_of(outcome.verification, len(outcome.ranks), outcome.depth, outcome.levels).learn(outcome)

    def learn_children(self, place: Round, parents: int, children: int) -> None:
        depth = place.next_depth - 2
        key = depth, _bucket(place.widths[depth])
        known = self._children.get(key, self.fan_out[key[0]])
        self._unused += 1
        self._children[key] = known + FAN_OUT_SHARE * (children / parents - known)

    def learn_times(self, times: StepTimes) -> None:
        self._times += 1
        if not self.follows_clock or self._times % TIME_EVERY:
            return
        self._target_curve.add(1, times.target_tokens, times.target_seconds)
        if self._draft_curve and times.draft_forwards:
            self._draft_curve.add(times.draft_forwards, times.draft_tokens, times.draft_seconds)
        if self._times % LOOK_AT_TIMES_EVERY:
            return
        target = self._target_curve.curve()
        draft = self._draft_curve.curve() if self._draft_curve else None
        if target.differs(self.costs.target) or (draft and self.costs.draft and draft.differs(self.costs.draft)):
            self.costs = replace(self.costs, target=target, draft=draft)
            self._outlooks.clear()

    def _won(self, outlook: _Outlook, depth: int, levels: int, certainty: DoubleArray, counts: DoubleArray) -> DoubleArray:
        """Seconds won by drafting `counts` nodes that are accepted with `certainty`, with the best that can follow."""
        below = outlook.best(depth + 1, levels + 1, certainty, counts)
        won: DoubleArray = certainty * outlook.savings[depth] + below - outlook.token * counts
        return won

    def _outlook(self, place: Round, has_draft: bool) -> _Outlook:
        key = place.verification, place.widths, place.sharing, has_draft, place.exploring
        if self._unused > min(REFRESH_EVERY, REFRESH_SHARE * self._learned):
            self._unused = 0
            self._outlooks.clear()
        if key not in self._outlooks:
            if len(self._outlooks) >= MOST_OUTLOOKS:
                self._outlooks.clear()
            self._outlooks[key] = self._look_ahead(place, has_draft)
        return self._outlooks[key]

    def _look_ahead(self, place: Round, has_draft: bool) -> _Outlook:
        """Plans searches of one kind from the deepest level up."""
        widths, last, draft = place.widths, place.last_depth, self.costs.draft if has_draft else None
        fan_out = tuple(self._children.get((depth, _bucket(widths[depth])), self.fan_out[depth]) for depth in range(last))
        token = self.costs.target.per_token
        worthwhile = WORTHWHILE * self.costs.target.fixed / place.sharing
        outlook = _Outlook({}, {}, fan_out, worthwhile, self.costs.children / place.sharing, token, draft.per_token if draft else 0.0, last)
        for depth in range(last, 0, -1):
            nodes = np.array([float(widths[depth])])
            forward = (self.costs.target.fixed - self.costs.level) / place.sharing + token * widths[depth]
            outlook.savings[depth] = forward - float(outlook.best(depth + 1, 0, np.ones(1), nodes)[0])
            if draft is not None:
                for levels in range(depth):
                    gaps = self._wanted(place, depth, levels)
                    certainty = CERTAINTIES[:, None] * gaps.chances()
                    counts = np.broadcast_to(gaps.mean_counts(widths[depth]), certainty.shape)
                    won = self._won(outlook, depth, levels, certainty, counts)
                    outlook.beam[depth, levels] = won.max(1) - draft.fixed / place.sharing
        return outlook

    def _wanted(self, place: Round, depth: int, levels: int) -> WantedGaps:
        return WantedGaps(PRIOR) if place.exploring else self._gaps_of(place.verification, place.widths[depth], depth, levels)

    def _gaps_of(self, verification: str, width: int, depth: int, levels: int) -> WantedGaps:
        levels = min(levels, LEVEL_KINDS - 1)
        key = verification, _bucket(width), depth, levels
        if key not in self._gaps:
            prior = self._gaps_of(verification, width, depth, levels - 1).chances() if levels else PRIOR
            self._gaps[key] = WantedGaps(prior)
        return self._gaps[key]


def _bucket(width: int) -> int:
    """Beam widths that share what was learned."""
    return round(4 * float(np.log2(width)))
