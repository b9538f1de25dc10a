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
# A level that more prefixes are kept of is drafted by so many times as many proposals, at most.
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
        depth: of the beam that the target has selected.
        nodes: prefixes in the frontier, below which the next level grows; the beam at first.
        sharing: requests that share the target's forward.
        group_size: those among them that began like this one and still draft, itself included; they are decided on together at first, and
            share the cost of drafting.
        tokens: in the target's forward before anything is drafted, those of all requests together.
        verification: how drafts are verified.
        uncomputed: counts the tokens before the frontier that the draft has not computed, per request; asked only where a draft seems worth
            asking, because counting takes longer than deciding.
        levels: levels that have grown in this round.
        drafted: nodes that they have added.
        unranked: whether the frontier holds nodes that the draft has not scored, so that it cannot go on from them.
        most_children: nodes that drafting children adds where the host does not know the frontier, and so not their number; else None.
        certainty: the plan's estimate that the target's beam reaches the frontier without a miss.
        exploring: whether the plan tries what it would not do by what it has learned.
        given: sources whose drafts are in the tree from the search's first round on.
        offered: sources that propose something for the search, whether it is in the tree or not.
        tolerance: how far its list may be from plain beam search's.
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
        depth: of the level.
        ranks: `[selected]` int64, the rank of each selected prefix among the proposals; -1 for one that was not proposed.
        scores: `[proposals]` float32, the draft's scores with the bonus, best first; -inf pads.
        levels: levels of the round before it.
        verification: how the draft was verified.
        covered: by choice of given drafts, `[selected]` bool, which of the prefixes these hold, so that nobody needs to propose them.
        held: by choice of given drafts, `[proposals]` bool, which of the proposals these hold.
        bonus: what the scores are raised by where the target kept a proposal when it was last asked for the user.
        tolerance: how far the list may be from plain beam search's.
        shares: `[selected]` float64, what each prefix takes of the level's part of the tolerance if it is missing; None without one.
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
    """Decides what is drafted; this one stops at once and learns nothing.

    Attributes:
        name: in settings and answers.
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
        """False if nothing will be drafted for a search that begins, whose user has a key or none, so that it need not be asked about."""
        return True

    def wants_last(self, state: DraftRound, key: str) -> bool:
        """True if what was kept of a user is wanted for a search that begins, and its own beams for the next one."""
        return self.uses_last

    def misses_last(self, state: DraftRound) -> None:
        """Learn that nothing was kept of the user of a search that begins, although it was wanted."""

    def given(self, state: DraftRound, offered: Mapping[Given, float]) -> Given:
        """Choose the sources of given drafts for a search that begins; `offered` are the nodes of each choice."""
        return Given.NONE

    @property
    def decides_by_group(self) -> bool:
        """True if rounds of equal state at their start have the same decision, which is then made once for all of them."""
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
        """True if a search, for whose round nothing is drafted, need not be asked about at its other levels either."""
        return False

    def bonus(self, state: DraftRound) -> float:
        """Nats by which the scores of proposals for the next level are raised that the target kept when it was last asked for the user."""
        return 0.0

    def width(self, state: DraftRound, scores: FloatArray | None, new: BoolArray | None) -> int:
        """Number of the draft's proposals to keep, the best first, at most `most_proposals`; 0 ends the round.

        Args:
            scores: `[proposals]` float32 with the bonus, -inf pads; None where the host would have to wait for them.
            new: `[proposals]` bool, which of them are not in the tree yet; None if that is not known.
        """
        return 0

    def sample(self, levels: int) -> range:
        """Those of so many levels of a step whose outcomes it wants."""
        return range(levels)

    def learn(self, outcomes: Sequence[LevelOutcome]) -> None:
        """Learn from the target's selections."""

    def learn_given(self, outcomes: Sequence[GivenOutcome]) -> None:
        """Learn what given drafts are worth, also those that were not taken."""

    def learn_children(self, state: DraftRound, parents: int, children: int) -> None:
        """Learn how many children the prefixes at `state` had."""

    def learn_times(self, times: StepTimes) -> None:
        """Learn how long a step took."""

    def lose_draft(self) -> None:
        """Go on without the draft model, which has failed."""
