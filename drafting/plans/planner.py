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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from drafting.array_types import BoolArray, DoubleArray, FloatArray
from drafting.lru import LruMap
from drafting.plans.acceptance import BONUSES, PRIOR, Expected, WantedGaps, new_within, within_gaps
from drafting.plans.costs import CERTAINTIES, ForwardCosts, LevelValues, room_of_level
from drafting.plans.given import Given, GivenOutcome
from drafting.plans.last_lists import LastLists
from drafting.plans.learned import GapKind, Learned, nearness
from drafting.plans.plan import Action, DraftRound, LevelOutcome, Plan, most_proposals
from drafting.plans.running_costs import RunningCosts, StepTimes
from drafting.plans.trials import Trials

AUTO = "auto"
# Costs are not known exactly: a round that promises less than this share of its forward, a long prompt included, may be a loss.
WORTHWHILE = 0.1
# After so many steps, one after the other, in which a draft was accepted, a search is plain: nothing else tells what a forward takes alone.
DRAFTED_STEPS = 128
MOST_VALUES = 256


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
    _learned: Learned = field(init=False)
    _running: RunningCosts = field(init=False)
    _known_values: LruMap[tuple[GapKind, tuple[int, ...], int, int, bool, ForwardCosts | None, float], LevelValues] = field(
        default_factory=lambda: LruMap(MOST_VALUES)
    )
    _last_lists: LastLists = field(default_factory=LastLists)
    _trials: Trials = field(default_factory=Trials)
    _drafted_steps: int = 0

    def __post_init__(self) -> None:
        self._learned, self._running = Learned(self.fan_out), RunningCosts(self.costs)

    def successor(self, fan_out: Sequence[float]) -> "Planner":
        """A planner for another catalog on the same machine, with the same costs. It shares what was learned of the acceptance of drafts if
        identifiers have the same length: acceptance depends on the models, and little on the items."""
        planner = Planner(self.costs, fan_out, self.follows_clock, self.items)
        if len(fan_out) == len(self.fan_out):
            planner._learned = self._learned.successor(fan_out)
        return planner

    @property
    def learns(self) -> bool:
        return True

    @property
    def uses_last(self) -> bool:
        return True

    def drafts_for(self, key: str | None) -> bool:
        if self._drafted_steps >= DRAFTED_STEPS:
            self._drafted_steps = 0
            return False
        if not self._trials.are_idle or (key is not None and self._last_lists.may_be_wanted(key)):
            return True
        return not self._trials.skip_search()

    def wants_last(self, state: DraftRound, key: str) -> bool:
        return self._last_lists.are_wanted(state, key, self.costs.last)

    def misses_last(self, state: DraftRound) -> None:
        self._last_lists.add(state, 0.0)

    def given(self, state: DraftRound, offered: Mapping[Given, float]) -> Given:
        if state.next_depth > state.last_depth:
            return Given.NONE
        nodes = {Given.NONE: 0.0, **offered}
        won = {source: self._won_with(state, source, state.offered, count) for source, count in nodes.items()}
        best = max(won, key=lambda source: won[source])
        if Given.LAST in state.offered:
            others = state.offered & ~Given.LAST
            without = max(self._won_with(state, source, others, count) for source, count in nodes.items() if Given.LAST not in source)
            self._last_lists.add(state, won[best] - without)
        # As for a round: less than this may be a loss. Where the draft is worth its forwards anyway, nothing more is risked.
        margin = WORTHWHILE * self.costs.target.seconds(state.tokens) / state.sharing
        if won[best] <= self._values(state).further[state.next_depth] + margin:
            return Given.NONE
        if best is not Given.NONE:
            self._trials.end(drafted=True)
        return best

    def _won_with(self, state: DraftRound, source: Given, offered: Given, nodes: float) -> float:
        """Seconds won by a whole search in whose tree `nodes` given nodes, those of `source`, are from its first round on."""
        state = replace(state, given=source, offered=offered, drafted=int(nodes))
        values, first = self._values(state), state.next_depth
        by_children, by_beam = values.weigh(first, 0, 1.0, state.nodes)
        free = max(self.costs.target.free - state.tokens, 0.0) / state.sharing
        begun = max(by_children, by_beam, values.stopping(first)) - values.token * max(nodes - free, 0.0)
        return begun + values.further[first]

    def action(self, state: DraftRound, has_draft: bool) -> Action:
        depth = state.next_depth
        if depth > state.last_depth:
            return Action.STOP
        if not state.levels:
            state.exploring = self._trials.begin(state)
        action = self._best_action(state, has_draft)
        if not state.levels and not state.exploring:
            self._trials.end(drafted=action is not Action.STOP)
        return action

    def gives_up(self, state: DraftRound) -> bool:
        if state.exploring:
            return False
        deeper = range(state.depth + 1, state.last_depth)
        values = self._values(state)
        if (given_up := values.given_up.get(state.depth)) is None:
            # Their forwards are without the prompt.
            widths, sharing = state.widths, state.sharing
            rounds = (replace(state, depth=depth, nodes=widths[depth], tokens=sharing * widths[depth], drafted=0) for depth in deeper)
            given_up = all(self._best_action(each) is Action.STOP for each in rounds)
            values.given_up[state.depth] = given_up
        if not given_up or self._trials.are_due(deeper):
            return False
        self._trials.count_rounds(deeper, state)
        return True

    def _best_action(self, state: DraftRound, has_draft: bool = True) -> Action:
        depth = state.next_depth
        values = self._values(state, has_draft)
        by_children, by_beam = values.weigh(depth, state.levels, state.certainty, state.nodes)
        if state.most_children is not None:
            # So many are computed, however few children there are.
            grown, most = values.price(np.array([state.nodes * values.fan_out[depth - 1], state.most_children])).tolist()
            by_children -= max(most - grown, 0.0)
        least = state.certainty * values.stopping(depth)
        least += 0.0 if state.levels else WORTHWHILE * self.costs.target.seconds(state.tokens) / state.sharing
        if not state.unranked and by_beam > max(by_children, least):
            by_beam -= float(values.draft_price(state.nodes + state.uncomputed()) - values.draft_price(state.nodes))
            if by_beam > max(by_children, least):
                return Action.BEAM
        return Action.CHILDREN if by_children > least else Action.STOP

    def bonus(self, state: DraftRound) -> float:
        return float(BONUSES[self._values(state).bonus[state.next_depth, state.levels]])

    def width(self, state: DraftRound, scores: FloatArray | None, new: BoolArray | None) -> int:
        depth = state.next_depth
        values, kept = self._values(state), state.widths[depth]
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

    def sample(self, levels: int) -> range:
        return self._learned.sample(levels)

    def learn(self, outcomes: Sequence[LevelOutcome]) -> None:
        self._learned.learn(outcomes)

    def learn_given(self, outcomes: Sequence[GivenOutcome]) -> None:
        self._learned.learn_given(outcomes)

    def learn_children(self, state: DraftRound, parents: int, children: int) -> None:
        depth = state.next_depth - 2
        self._learned.learn_children(depth, state.widths[depth], children / parents)

    def learn_times(self, times: StepTimes) -> None:
        if not self.follows_clock:
            return
        self._drafted_steps = self._drafted_steps + 1 if times.levels else 0
        if self._running.add(times):
            self._known_values.clear()
        self.costs = self._running.costs

    def lose_draft(self) -> None:
        self._running.lose_draft()
        self.costs = self._running.costs
        self._known_values.clear()

    def _won(self, values: LevelValues, depth: int, levels: int, certainty: DoubleArray, expected: Expected) -> DoubleArray:
        """Seconds won by drafting all proposals within each gap, with the best that can follow.

        Args:
            certainty: the chance that all levels above are accepted; it and the result are broadcast against `expected`.
        """
        accepted = certainty * expected.chances
        won: DoubleArray = accepted * values.savings[depth] + (certainty - accepted) * expected.kept * values.computed[depth]
        won += values.best(depth + 1, levels + 1, accepted, np.broadcast_to(expected.counts, accepted.shape))
        won -= values.price(expected.new)
        return won

    def _values(self, state: DraftRound, has_draft: bool = True) -> LevelValues:
        """The values of the levels below a state; `has_draft` is False where the engine has no draft, whatever one would cost."""
        if self._learned.refresh():
            self._known_values.clear()
        free = (self.costs.target.free - state.tokens) / state.sharing - state.drafted
        room = room_of_level(free, state.last_depth - state.next_depth + 1)
        return self._values_at(state, has_draft and self.costs.draft is not None, room)

    def _values_at(self, state: DraftRound, has_draft: bool, room: float) -> LevelValues:
        # Rounded down to a power of two, so that batches of about one size share their values, and nothing is thought to be shared by more.
        group_size = 1 << state.group_size.bit_length() - 1
        trial = self._running.on_trial(self.costs) if state.exploring else None
        key = _kind(state), state.widths, state.sharing, group_size, has_draft, trial, room
        return self._known_values.get(key) or self._known_values.keep(key, self._new_values(state, has_draft, group_size, room, trial))

    def _new_values(self, state: DraftRound, has_draft: bool, group_size: int, room: float, trial: ForwardCosts | None) -> LevelValues:
        """Plan searches of one kind from the deepest level up (backward induction), for a round with `room` free nodes of each level.
        `trial` are costs to plan by in place of the current ones, if the round is a trial."""
        costs = trial or self.costs
        target, draft = costs.target, costs.draft if has_draft else None
        widths, last, sharing = state.widths, state.last_depth, state.sharing
        values = LevelValues(
            savings={},
            computed={},
            beam={},
            bonus={},
            fan_out=tuple(self._learned.children(depth, widths[depth]) for depth in range(last)),
            children_cost=costs.children_of_each(group_size),
            token=target.per_token,
            room=room,
            draft_token=draft.per_token if draft else 0.0,
            draft_room=draft.free / group_size if draft else 0.0,
            last_depth=last,
        )
        # Prompts take from what is free in this round only.
        free = target.free / sharing
        later_room = room_of_level(free - max(widths[: last + 1]), last)
        later = values if later_room == room else self._values_at(state, has_draft, later_room)
        for depth in range(last, 0, -1):
            nodes = np.array([float(widths[depth])])
            values.computed[depth] = target.per_token * max(widths[depth] - free, 0.0)
            forward = target.fixed / sharing - costs.level / group_size + values.computed[depth]
            next_round = float(later.best(depth + 1, 0, np.ones(1), nodes)[0])
            values.savings[depth] = forward - next_round
            values.further[depth] = next_round + values.further.get(depth + 1, 0.0)
            for levels in range(depth if state.given else 0):
                below = values.given.get((depth + 1, levels + 1), 0.0)
                chance = self._learned.covered(state.verification, state.given, widths[depth], depth, levels)
                values.given[depth, levels] = chance * (values.savings[depth] + below)
            if draft is not None:
                for levels in range(depth):
                    expected = self._wanted(state, depth, levels).expected(widths[depth])
                    # The bonus that is best where all above is accepted.
                    best = self._won(values, depth, levels, np.ones((1, 1)), expected).max(1)
                    values.bonus[depth, levels] = bonus = int(best.argmax())
                    won = self._won(values, depth, levels, CERTAINTIES[:, None], expected.with_bonus(bonus))
                    values.beam[depth, levels] = won.max(1) - draft.fixed / group_size
        return values

    def _wanted(self, state: DraftRound, depth: int, levels: int) -> WantedGaps:
        if state.exploring:
            return WantedGaps(PRIOR[None])
        return self._learned.gaps(_kind(state), state.widths[depth], depth, levels)


def _kind(state: DraftRound) -> GapKind:
    return state.verification, state.offered, state.given, nearness(state.tolerance)
