"""Plans: what shape of tree to draft before a forward of the target.

Invariant: a plan changes what a round costs and how many forwards it may save, never the list of a strict search. Any plan is therefore a
valid answer, none at all included. A plan is asked level by level, because what the draft says of one level decides whether the next is
worth its tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from drafting.array_types import BoolArray, DoubleArray, FloatArray, IntArray
from drafting.beam.rule import Tolerance, Verification
from drafting.plans.given import Given, GivenOutcome
from drafting.plans.running_costs import StepTimes

MOST_PROPOSALS = 256
# A level at which the target keeps many prefixes is drafted by at most so many times as many proposals.
PROPOSALS_SHARE = 2


def most_proposals(width: int) -> int:
    """The most nodes that are worth drafting for a level at which the target keeps `width` prefixes."""
    return max(MOST_PROPOSALS, PROPOSALS_SHARE * width)


class Action(Enum):
    """The way in which the next level of a tree grows."""

    STOP = auto()
    CHILDREN = auto()
    BEAM = auto()


@dataclass
class DraftRound:
    """The state of drafting of one request in a step.

    Attributes:
        widths: prefixes that the target keeps at each depth, the root included.
        depth: the depth of the beam that the target has selected.
        nodes: number of prefixes in the frontier, below which the next level grows; at first the frontier is the beam.
        sharing: number of searches that share the target's forward.
        group_size: number of those, this one included, that began this round in the same state and still draft. They are decided on
            together at first, and share the cost of drafting.
        tokens: tokens of all requests in the target's forward, without what is drafted in this round.
        verification: how drafts are verified.
        uncomputed: function that counts the tokens before the frontier that the draft has not computed, on average over the group. It
            is called only where asking the draft seems worth it, because counting takes longer than deciding.
        levels: number of levels that have been drafted in this round.
        drafted: number of nodes that these levels have added.
        unranked: True if the frontier holds nodes that the draft has not scored, so that it cannot go on from them.
        most_children: number of nodes that drafting children adds where the host has not read the frontier, and so cannot count its
            children; None where it has.
        certainty: the plan's estimate that the target's beam reaches the frontier without a miss.
        exploring: True if the round is a trial, in which the plan may do what it would not do by what it has learned.
        given: the sources of the given drafts that are in the tree, from the search's first round on.
        offered: all sources that propose something for the search, in the tree or not.
        tolerance: how far the search's list may be from plain beam search's; None for exactly that list.
    """

    widths: tuple[int, ...]
    depth: int
    nodes: int
    sharing: int
    group_size: int = 1
    tokens: int = 0
    verification: Verification = Verification.STRICT
    uncomputed: Callable[[], float] = float
    levels: int = 0
    drafted: int = 0
    unranked: bool = False
    most_children: int | None = None
    certainty: float = 1.0
    exploring: bool = False
    given: Given = Given.NONE
    offered: Given = Given.NONE
    tolerance: Tolerance | None = None

    @property
    def next_depth(self) -> int:
        """The depth that grows next."""
        return self.depth + self.levels + 1

    @property
    def last_depth(self) -> int:
        """The deepest level whose nodes are scored; the one below it is the list."""
        return len(self.widths) - 2


@dataclass(frozen=True)
class LevelOutcome:
    """The target's selection at a level for which the draft had made proposals.

    Attributes:
        depth: the depth of the level.
        ranks: `[selected]` int64, the rank of each selected prefix among the proposals; -1 for one that was not proposed.
        scores: `[proposals]` float32, the draft's scores of the proposals, bonus included, best first; -inf pads.
        levels: number of levels that the round had drafted above this one.
        verification: how the draft was verified.
        covered: for each choice of given drafts, `[selected]` bool: True for selected prefixes that are among the given ones, so that the
            draft need not propose them.
        held: for each choice of given drafts, `[proposals]` bool: True for proposals that are among the given ones.
        bonus: nats by which `scores` are raised for proposals that the target kept when it was last asked for the user.
        tolerance: how far the search's list may be from plain beam search's; None for exactly that list.
        shares: `[selected]` float64, the share of the level's part of the tolerance that each prefix takes if it was not drafted; None
            without a tolerance.
    """

    depth: int
    ranks: IntArray
    scores: FloatArray
    levels: int
    verification: Verification = Verification.STRICT
    covered: Mapping[Given, BoolArray] = field(default_factory=dict)
    held: Mapping[Given, BoolArray] = field(default_factory=dict)
    bonus: float = 0.0
    tolerance: Tolerance | None = None
    shares: DoubleArray | None = None


class Plan:
    """Decides what is drafted. By default, a plan stops at once and learns nothing.

    Attributes:
        name: the plan's name in settings and answers.
    """

    name: str

    @property
    def drafts(self) -> bool:
        """True if the plan ever drafts."""
        return True

    @property
    def needs_draft(self) -> bool:
        """True if the plan needs a draft model."""
        return False

    @property
    def items(self) -> int:
        """The most items of a retriever whose prefixes the plan drafts."""
        return 0

    @property
    def uses_last(self) -> bool:
        """True if the plan drafts what the target kept when it was last asked for a user."""
        return False

    def drafts_for(self, key: str | None) -> bool:
        """False if a search that begins runs without drafts, and the plan is not asked about its rounds; `key` is its user's, if any."""
        return True

    def wants_last(self, state: DraftRound, key: str) -> bool:
        """True if a search that begins is to be offered what was kept of its user, and to keep its own beams for the user's next search."""
        return self.uses_last

    def misses_last(self, state: DraftRound) -> None:
        """Learn that for a search that begins nothing was kept of its user, although the plan wanted it."""

    def given(self, state: DraftRound, offered: Mapping[Given, float]) -> Given:
        """Choose the sources of given drafts for a search that begins; `offered` has the number of nodes of each choice."""
        return Given.NONE

    @property
    def decides_by_group(self) -> bool:
        """True if rounds that begin in the same state get the same first action, which is then decided once for all of them."""
        return True

    def most_proposals(self, width: int) -> int:
        """Number of continuations that the draft ranks for a level at which the target keeps `width` prefixes."""
        return most_proposals(width)

    @property
    def learns(self) -> bool:
        """True if the plan learns from the target's selections by `learn`."""
        return False

    @property
    def widest_beam(self) -> int | None:
        """The widest beam that requests may have under this plan; None if any."""
        return None

    def refusal(self, width: int) -> str | None:
        """Reason why a request that keeps `width` prefixes can't run under this plan, as a sentence; None if it can."""
        return None

    def action(self, state: DraftRound, has_draft: bool) -> Action:
        """Choose how the next level grows."""
        return Action.STOP

    def gives_up(self, state: DraftRound) -> bool:
        """True if nothing is to be drafted in the later rounds of a search either, after one for which nothing is."""
        return False

    def bonus(self, state: DraftRound) -> float:
        """Nats by which to raise the scores of those proposals for the next level that the target kept when last asked for the user."""
        return 0.0

    def width(self, state: DraftRound, scores: FloatArray | None, new: BoolArray | None) -> int:
        """Number of the draft's proposals to keep, the best first, at most `most_proposals`; 0 ends the round.

        Args:
            scores: `[proposals]` float32, bonus included, best first; -inf pads. None where the host would have to wait for them.
            new: `[proposals]` bool, True for proposals that are not in the tree yet; None if all are new or that is not known.
        """
        return 0

    def sample(self, levels: int) -> range:
        """Which of the `levels` levels that a step has verified the plan wants to learn from."""
        return range(levels)

    def learn(self, outcomes: Sequence[LevelOutcome]) -> None:
        """Learn from the target's selections."""

    def learn_given(self, outcomes: Sequence[GivenOutcome]) -> None:
        """Learn what given drafts would have been worth, in the tree or not."""

    def learn_children(self, state: DraftRound, parents: int, children: int) -> None:
        """Learn how many children prefixes have: `parents` of them had `children`, which are the frontier of `state` now."""

    def learn_times(self, times: StepTimes) -> None:
        """Learn how long a step took."""

    def lose_draft(self) -> None:
        """Go on without the draft model, which has failed."""
