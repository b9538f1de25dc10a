"""The planner: drafts exactly as much as pays on this machine, for this request, at this batch size.

It weighs two things. What a level costs: tokens of the target, a forward of the draft. What it may save: the rounds that an accepted level
makes unnecessary, times the chance that it is accepted (`acceptance`). Searches are planned from the end: the cost of finishing from a beam
at each depth follows from the costs of finishing from the deeper ones, so the value of accepting a level is known before it is drafted.
Within a level nodes are taken best first for as long as the next ones are worth more than their tokens. Given drafts are weighed before a
search's first level: for each choice of sources, what its nodes cost, and what the search is worth with them in the tree.

Tokens that come free with a forward (`CostCurve.free`) are shared like its fixed part: what the batch needs anyway takes them first, each
request drafts from its part of the rest, and only nodes beyond that have a price.

Invariant: nothing at all is always among the choices, and a forward that many requests share is worth only their part of it to each; so on
a busy machine drafts shrink, and a draft that the target does not follow is no longer asked. What drafting adds to a step is shared only by
requests in the same state (`DraftRound.group_size`): the others may decide otherwise, and then bear the cost alone.
"""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_

import numpy as np

from drafting.array_types import BoolArray, DoubleArray, FloatArray
from drafting.plans.acceptance import BONUSES, PRIOR, Coverage, Expected, WantedGaps, first_gaps, new_within, within_gaps
from drafting.plans.costs import CERTAINTIES, ForwardCosts, LevelValues, RunningCurve
from drafting.plans.given import Given, GivenOutcome
from drafting.plans.plan import Action, DraftRound, LevelOutcome, Plan, StepTimes, most_proposals

AUTO = "auto"
# A round is planned by priors every so many forwards of the target, to notice when what was learned long ago no longer holds.
# Forwards and not rounds are counted, because the draft's forward that a trial needs is shared by few, however many share the target's.
# Each depth is counted for itself, or trials would fall on one that comes by in step with them.
EXPLORE_EVERY = 128
# What was learned is looked at anew when it has grown by this share, and at the latest after so many levels.
REFRESH_SHARE = 0.1
REFRESH_EVERY = 256
# Of the steps that are run, every so many is timed, and after so many the costs are looked at anew.
TIME_EVERY = 4
LOOK_AT_TIMES_EVERY = 32
# Costs are not known exactly: a round that promises less than this share of its forward, a long prompt included, may be a loss.
WORTHWHILE = 0.05
# How much a new count of children weighs against the mean of the earlier ones.
FAN_OUT_SHARE = 0.05
# Levels of one step that are learned from, at most; those of large batches say much the same, and each takes time.
LEARNED_AT_ONCE = 16
LEVEL_KINDS = 3
MOST_VALUES = 256

# Of searches that share what was learned: how drafts are verified, the sources offered, and those in the tree.
Kind = tuple[str, Given, Given]


@dataclass
class Planner(Plan):
    """A plan that decides level by level; see the module.

    Attributes:
        costs: costs of forwards on this machine.
        fan_out: by depth, a first guess at the children of a prefix: `ItemTrie.mean_fan_out`.
        follows_clock: True if the costs follow the measured steps; otherwise they are constant.
        items: the most items of a retriever that may be drafted.
    """

    name = AUTO
    costs: ForwardCosts
    fan_out: Sequence[float]
    follows_clock: bool = False
    items: int = 0
    _gaps: dict[tuple[Kind, int, int, int], WantedGaps] = field(default_factory=dict)
    _coverage: dict[tuple[str, Given, int, int, int], Coverage] = field(default_factory=dict)
    _children: dict[tuple[int, int], float] = field(default_factory=dict)
    _known_values: dict[tuple[Kind, tuple[int, ...], int, int, bool, bool, float], LevelValues] = field(default_factory=dict)
    _learned: int = 0
    _unused: int = 0
    _turn: int = 0
    _unexplored: dict[int, float] = field(default_factory=dict)
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
        learned = deepcopy((self._gaps, self._coverage)) if same else ({}, {})
        return Planner(self.costs, fan_out, self.follows_clock, self.items, *learned)

    def most_proposals(self, width: int) -> int:
        return most_proposals(width)

    @property
    def learns(self) -> bool:
        return True

    @property
    def uses_last(self) -> bool:
        return True

    def given(self, state: DraftRound, offered: Mapping[Given, float]) -> Given:
        if state.next_depth > state.last_depth:
            return Given.NONE
        chosen, most = Given.NONE, self._begun(state, Given.NONE, 0.0)
        # As for a round: less than this may be a loss.
        most += WORTHWHILE * self.costs.target.seconds(state.tokens) / state.sharing
        for source, nodes in offered.items():
            if (won := self._begun(state, source, nodes)) > most:
                chosen, most = source, won
        return chosen

    def _begun(self, state: DraftRound, source: Given, nodes: float) -> float:
        """Seconds won by a search that begins with so many given nodes in its tree."""
        state = replace(state, given=source, drafted=int(nodes))
        values, first = self._values(state, self.costs.draft is not None), state.next_depth
        by_children, by_beam = values.weigh(first, 0, 1.0, state.nodes)
        free = max(self.costs.target.free - state.tokens, 0.0) / state.sharing
        return max(by_children, by_beam, values.stopping(first)) - values.token * max(nodes - free, 0.0)

    def action(self, state: DraftRound, has_draft: bool) -> Action:
        depth = state.next_depth
        if depth > state.last_depth:
            return Action.STOP
        if not state.levels:
            waited = self._unexplored.get(state.depth, 0.0) + state.group_size / state.sharing
            state.exploring = waited >= EXPLORE_EVERY
            self._unexplored[state.depth] = waited - EXPLORE_EVERY if state.exploring else waited
        values = self._values(state, has_draft and self.costs.draft is not None)
        by_children, by_beam = values.weigh(depth, state.levels, state.certainty, state.nodes)
        least = state.certainty * values.stopping(depth)
        least += 0.0 if state.levels else WORTHWHILE * self.costs.target.seconds(state.tokens) / state.sharing
        if not state.unranked and by_beam > max(by_children, least):
            by_beam -= float(values.draft_price(state.nodes + state.uncomputed()) - values.draft_price(state.nodes))
            if by_beam > max(by_children, least):
                return Action.BEAM
        return Action.CHILDREN if by_children > least else Action.STOP

    def bonus(self, state: DraftRound) -> float:
        return float(BONUSES[self._values(state, True).bonus[state.next_depth, state.levels]])

    def width(self, state: DraftRound, scores: FloatArray | None, new: BoolArray | None) -> int:
        depth = state.next_depth
        values, kept = self._values(state, True), state.widths[depth]
        expected = self._wanted(state, depth, state.levels).expected(kept).with_bonus(values.bonus[depth, state.levels])
        if scores is None:
            # As many as lie within each gap on average.
            expected = replace(expected, counts=np.minimum(np.ceil(expected.counts), most_proposals(kept)))
        else:
            counts = within_gaps(scores, kept)
            expected = replace(expected, counts=counts.astype(float), new=new_within(counts, new))
        won = self._won(values, depth, state.levels, np.array(state.certainty), expected)
        best = int(won.argmax())
        if won[best] <= state.certainty * values.stopping(depth):
            return 0
        state.certainty *= float(expected.chances[best])
        return int(expected.counts[best])

    def learn(self, outcomes: Sequence[LevelOutcome]) -> None:
        # Every so many of them, beginning with another one each time, so that all depths have their turn.
        apart = max(-(-len(outcomes) // LEARNED_AT_ONCE), 1)
        outcomes = outcomes[self._turn % apart :: apart]
        self._turn += 1
        self._learned += len(outcomes)
        self._unused += len(outcomes)
        for outcome in outcomes:
            width, offered = len(outcome.ranks), reduce(or_, outcome.covered, Given.NONE)
            first = first_gaps(outcome)
            for source in (Given.NONE, *outcome.covered):
                kind = outcome.verification, offered, source
                self._gaps_of(kind, width, outcome.depth, outcome.levels).learn(outcome, first, source)

    def learn_given(self, outcomes: Sequence[GivenOutcome]) -> None:
        self._learned += len(outcomes)
        self._unused += len(outcomes)
        for outcome in outcomes:
            # A round that had begun at any of the levels above would have come to this one by what is given.
            for levels in range(min(outcome.levels, LEVEL_KINDS - 1) + 1):
                key = outcome.verification, outcome.source, _bucket(outcome.width), outcome.depth, levels
                self._coverage.setdefault(key, Coverage()).learn(outcome.covered)

    def learn_children(self, state: DraftRound, parents: int, children: int) -> None:
        depth = state.next_depth - 2
        key = depth, _bucket(state.widths[depth])
        known = self._children.get(key, self.fan_out[key[0]])
        self._learned += 1
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
            self._known_values.clear()

    def _won(self, values: LevelValues, depth: int, levels: int, certainty: DoubleArray, expected: Expected) -> DoubleArray:
        """Seconds won by drafting all proposals within each gap, with the best that can follow.

        Args:
            certainty: that all levels above are accepted; broadcast against `expected`, as is what is returned.
        """
        accepted = certainty * expected.chances
        won: DoubleArray = accepted * values.savings[depth] + (certainty - accepted) * expected.kept * values.computed[depth]
        won += values.best(depth + 1, levels + 1, accepted, np.broadcast_to(expected.counts, accepted.shape))
        won -= values.price(expected.new)
        return won

    def _values(self, state: DraftRound, has_draft: bool) -> LevelValues:
        if self._unused > min(REFRESH_EVERY, REFRESH_SHARE * self._learned):
            self._unused = 0
            self._known_values.clear()
        free = (self.costs.target.free - state.tokens) / state.sharing - state.drafted
        return self._values_at(state, has_draft, _room(free, state.last_depth - state.next_depth + 1))

    def _values_at(self, state: DraftRound, has_draft: bool, room: float) -> LevelValues:
        # Rounded down to a power of two, so that batches of about one size share their values, and nothing is thought to be shared by more.
        group_size = 1 << state.group_size.bit_length() - 1
        key = _kind(state), state.widths, state.sharing, group_size, has_draft, state.exploring, room
        if key not in self._known_values:
            values = self._look_ahead(state, has_draft, group_size, room)
            if len(self._known_values) >= MOST_VALUES:
                self._known_values.pop(next(iter(self._known_values)))
            self._known_values[key] = values
        return self._known_values[key]

    def _look_ahead(self, state: DraftRound, has_draft: bool, group_size: int, room: float) -> LevelValues:
        """Plan searches of one kind from the deepest level up, for a round in which `room` nodes of each level are free."""
        target, draft = self.costs.target, self.costs.draft if has_draft else None
        widths, last, sharing = state.widths, state.last_depth, state.sharing
        values = LevelValues(
            savings={},
            computed={},
            beam={},
            bonus={},
            fan_out=tuple(self._children.get((depth, _bucket(widths[depth])), self.fan_out[depth]) for depth in range(last)),
            children_cost=self.costs.children / group_size,
            token=target.per_token,
            room=room,
            draft_token=draft.per_token if draft else 0.0,
            draft_room=draft.free / group_size if draft else 0.0,
            last_depth=last,
        )
        # Prompts take from what is free in this round only.
        free = target.free / sharing
        later_room = _room(free - max(widths[: last + 1]), last)
        later = values if later_room == room else self._values_at(state, has_draft, later_room)
        for depth in range(last, 0, -1):
            nodes = np.array([float(widths[depth])])
            values.computed[depth] = target.per_token * max(widths[depth] - free, 0.0)
            forward = target.fixed / sharing - self.costs.level / group_size + values.computed[depth]
            values.savings[depth] = forward - float(later.best(depth + 1, 0, np.ones(1), nodes)[0])
            for levels in range(depth if state.given else 0):
                below = values.given.get((depth + 1, levels + 1), 0.0)
                values.given[depth, levels] = self._chance(state, depth, levels) * (values.savings[depth] + below)
            if draft is not None:
                for levels in range(depth):
                    expected = self._wanted(state, depth, levels).expected(widths[depth])
                    best = self._won(values, depth, levels, CERTAINTIES[:, None, None], expected).max(2)
                    values.bonus[depth, levels] = int(best[-1].argmax())
                    values.beam[depth, levels] = best[:, values.bonus[depth, levels]] - draft.fixed / group_size
        return values

    def _wanted(self, state: DraftRound, depth: int, levels: int) -> WantedGaps:
        if state.exploring:
            return WantedGaps(PRIOR[None])
        return self._gaps_of(_kind(state), state.widths[depth], depth, levels)

    def _chance(self, state: DraftRound, depth: int, levels: int) -> float:
        """The chance that what is given alone accepts a level."""
        key = state.verification, state.given, _bucket(state.widths[depth]), depth, min(levels, LEVEL_KINDS - 1)
        return self._coverage[key].chance if key in self._coverage else 0.0

    def _gaps_of(self, kind: Kind, width: int, depth: int, levels: int) -> WantedGaps:
        levels = min(levels, LEVEL_KINDS - 1)
        key = kind, _bucket(width), depth, levels
        if key not in self._gaps:
            verification, offered, source = kind
            prior = PRIOR[None]
            if levels or offered:
                # What is known of rounds that begin nearer, or else of drafts with nothing given beside.
                nearer, beside = (levels - 1, kind) if levels else (0, (verification, offered if source else Given.NONE, Given.NONE))
                prior = self._gaps_of(beside, width, depth, nearer).expected(width).chances
            self._gaps[key] = WantedGaps(prior, Given.LAST in offered)
        return self._gaps[key]


def _kind(state: DraftRound) -> Kind:
    return state.verification, state.offered, state.given


def _bucket(width: int) -> int:
    """Beam widths that share what was learned."""
    return round(4 * float(np.log2(width)))


def _room(free: float, levels: int) -> float:
    """Free nodes of each of some levels; a power of two, so that batches of about one size share values."""
    return 2.0 ** math.floor(math.log2(free / levels)) if free >= levels else 0.0
