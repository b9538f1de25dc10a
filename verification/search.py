"""One running search: its sequence, its beam and what it has cost so far.

Invariant: slots for a plain search are set aside when it starts, and a draft only takes others. So a search that has started
never runs out of memory half way.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from drafting.array_types import FloatArray, IntArray
from drafting.beam.rule import Normalisation, SearchRule, Tolerance, Verification
from drafting.beam.tree import Origin, SequenceState
from drafting.plans.given import Given, GivenPrefixes
from drafting.plans.plan import LevelOutcome
from drafting.plans.task import Proposed
from drafting.trie.eligibility import Eligibility
from drafting.trie.item_trie import ItemTrie
from verification.request import BeamRequest
from verification.result import Usage

# Origins of drafts.
DRAFTED = (Origin.LAST, Origin.ITEMS, Origin.CHILDREN, Origin.BEAM)
# Prefixes of a level that are kept for the next search of a user, at least; so many times those of the beam where that is more.
FEWEST_KEPT = 40
KEPT_SHARE = 2
NOTHING = np.empty(0, np.int64)
# Distance between the seeds of a sampled search's rounds: large, so that no round has the seed of a neighbouring list of a file.
ROUND_SEEDS = 0x1E3779B97F4A7C15


def beam_widths(request: BeamRequest, trie: ItemTrie) -> tuple[int, ...]:
    """Prefixes kept at each depth from the root on: at most as many as the level has nodes. At the last, k; with caps a whole beam.

    A request for scores has no beam: the candidates' prefixes that a step has room for are set aside as one level.
    """
    if request.scored is not None:
        return 1, request.scored.nodes, 1
    asked = request.beam_widths or (request.beam_width,) * (trie.depth - 1)
    last = request.last_width if request.caps else request.k
    return tuple(min(width, trie.level_size(depth)) for depth, width in enumerate((1, *asked, last)))


@dataclass(eq=False)
class BeamSearch:
    """The state of one search.

    Attributes:
        request: what is searched for; its key is removed if its user is forgotten meanwhile.
        rule: how prefixes are ranked and drafts verified.
        widths: prefixes kept at depth 0 (the root), 1, 2, ….
        eligibility: the trie nodes that the search may enter.
        cached_tokens: number of prompt tokens that other requests had computed before.
        shared_length: number of slots at the beginning of the sequence that this search does not own.
        beam: indices in the sequence of the prefixes selected last, best first; the root at first.
        ancestors: indices in the sequence of all prefixes selected before, level by level, the root first.
        depth: depth of the beam.
        drafts: True if nodes may be drafted for the search.
        normalise: what its log-probabilities are normalised over.
        tolerance: how far its list may be from plain beam search's; None for exactly that list.
        untaught: for a search with a tolerance, what the plan learns from when the list is known: the outcome of each level, with the trie
            nodes and log-probabilities of its beam.
        keeps_beams: True if the prefixes that it keeps and nearly keeps are wanted as drafts of its user's next search.
        kept: the trie nodes of these prefixes, level by level.
        offered: given drafts for its first round; None where there are none.
        given: the sources of those that are in the tree.
        covered: for each choice of given drafts, the number of consecutive levels right above the next one whose beams it holds.
        rounds: how often the search has begun; more than once for some lists with caps.
        target_forwards, draft_forwards, drafted_nodes, accepted_depths: as in `Usage`.
        used: for each `Origin`, the number of nodes that the target's beams have used.
        drafted_by: the kinds of drafts that have added nodes, of `beam`, `children`, `items` and `last`.
        proposed: by depth, what the draft has proposed in this round; only levels at which it was asked, and something was taken.
    """

    request: BeamRequest
    widths: tuple[int, ...]
    sequence: SequenceState
    eligibility: Eligibility
    cached_tokens: int = 0
    shared_length: int = 0
    rule: SearchRule = field(init=False)
    tolerance: Tolerance | None = field(init=False)
    beam: IntArray = field(init=False)
    ancestors: IntArray = field(default_factory=lambda: NOTHING)
    depth: int = 0
    drafts: bool = True
    normalise: Normalisation = Normalisation.VOCABULARY
    untaught: list[tuple[LevelOutcome, IntArray, FloatArray]] = field(default_factory=list)
    keeps_beams: bool = False
    kept: list[IntArray] = field(default_factory=list)
    offered: GivenPrefixes | None = None
    given: Given = Given.NONE
    covered: dict[Given, int] = field(default_factory=dict)
    rounds: int = 1
    target_forwards: int = 0
    draft_forwards: int = 0
    drafted_nodes: int = 0
    used: IntArray = field(default_factory=lambda: np.zeros(len(Origin), np.int64))
    accepted_depths: list[int] = field(default_factory=list)
    drafted_by: set[str] = field(default_factory=set)
    proposed: dict[int, Proposed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        request = self.request
        self.rule = request.rule
        is_exact = request.reserved is not None or request.blend is not None or request.explain is not None or request.caps
        self.tolerance = None if is_exact else request.tolerance
        self.beam = np.array([self.sequence.root])

    @property
    def last_depth(self) -> int:
        """The deepest level whose nodes are computed; the one below it is the list."""
        return len(self.widths) - 2

    def selected(self, depth: int) -> int:
        """Number of prefixes at `depth` that the target is to select: the beam, and where that is wanted what it nearly keeps."""
        width, is_wanted = self.widths[depth], self.keeps_beams or self.tolerance is not None
        return max(FEWEST_KEPT, KEPT_SHARE * width) if is_wanted and depth <= self.last_depth else width

    def continued(self, depth: int) -> int:
        """Number of prefixes at `depth` that the level below continues while unread: the beam, and with a tolerance also its stand-ins."""
        return self.widths[depth] if self.tolerance is None else self.selected(depth)

    def take_given(self, source: Given) -> None:
        """Note that the given drafts of `source` are in the tree."""
        self.given = source
        self.drafted_by |= set(source.names)

    @property
    def reserved_nodes(self) -> int:
        """Number of nodes that the search may still need without drafts, beside those that it has; with caps, also for a further round."""
        needed = sum(self.widths[self.depth + 1 : -1])
        return max(needed, sum(self.widths[1:-1]) - self.sequence.nodes) if self.request.caps else needed

    @property
    def draft_uncomputed(self) -> IntArray:
        """Slots of the tokens before the beam that the draft has not computed; searches may share those of their prompts."""
        return self.sequence.slots[self.sequence.draft_uncomputed(self.ancestors)]

    def computed_at(self, depth: int) -> IntArray:
        """Indices of the nodes at `depth` that the target has computed, the newest first, because unread drafts may repeat prefixes."""
        if depth > self.sequence.deepest:
            return NOTHING
        return np.flatnonzero(self.sequence.depths[: self.sequence.computed] == depth)[::-1]

    def beam_fields(self, indices: IntArray, depth: int) -> IntArray:
        """`SequenceState.beam_fields` of nodes at `depth`. Only relaxed verification needs to know below which the draft was asked."""
        below = self.proposed.get(depth + 1) if self.rule.verification is Verification.RELAXED else None
        return self.sequence.beam_fields(indices, None if below is None else below.above)

    def node_fields(self, indices: IntArray, depth: int) -> IntArray:
        """`[3, nodes]`: `beam_fields` of nodes at `depth`, and for relaxed verification 1 for those that the draft proposed this round."""
        here = self.proposed.get(depth) if self.rule.verification is Verification.RELAXED else None
        proposed = np.zeros_like(indices) if here is None else np.isin(indices, here.nodes)
        return np.concatenate([self.beam_fields(indices, depth), proposed[None]])

    def descend(self, nodes: IntArray, drafted: IntArray, hits: IntArray, allocate: Callable[[int], IntArray]) -> None:
        """Make prefixes of the next level the beam; `nodes` are their trie nodes, `[n]` int64, best first.

        Args:
            drafted: indices in the sequence of the drafted nodes of the level.
            hits: `[n]`, where each of `nodes` stands in `drafted`; -1 for one that was not drafted, which is appended to the sequence.
            allocate: takes node slots.
        """
        missing = hits < 0
        added = int(np.count_nonzero(missing))
        self.ancestors = np.concatenate([self.ancestors, self.beam])
        self.depth += 1
        self.beam = np.empty(len(nodes), np.int64)
        self.beam[missing] = self.sequence.append(allocate(added), self.depth, nodes[missing])
        if added == len(nodes):
            return
        self.beam[~missing] = drafted[hits[~missing]]
        self.count_used(self.beam[~missing])
        if not added:
            self.accepted_depths.append(self.depth)

    def count_used(self, indices: IntArray) -> None:
        """Count nodes that the target has selected, by origin."""
        self.used += np.bincount(self.sequence.origins[indices], minlength=len(Origin))

    def restart(self, eligibility: Eligibility) -> IntArray:
        """Begin again behind the same prompt, with another eligibility and other noise; return the slots of the nodes that are given up.

        The root is computed anew, because what is known of it holds for what was eligible before.
        """
        self.eligibility, self.rule = eligibility, self.rule.numbered(ROUND_SEEDS)
        self.beam, self.ancestors, self.depth = np.array([self.sequence.root]), NOTHING, 0
        self.offered, self.given = None, Given.NONE
        self.rounds += 1
        return self.sequence.drop_nodes()

    def absorb(self, other: "BeamSearch", *, beside: bool = True) -> None:
        """Take over the cost of another search of the request. Nodes add up, and so do forwards unless both ran side by side."""
        self.drafted_nodes += other.drafted_nodes
        self.used += other.used
        self.drafted_by |= other.drafted_by
        self.rounds += other.rounds - 1
        if not beside:
            self.draft_forwards += other.draft_forwards
            self.target_forwards += other.target_forwards
            self.accepted_depths += other.accepted_depths
        else:
            self.draft_forwards = max(self.draft_forwards, other.draft_forwards)
            if other.target_forwards > self.target_forwards:
                self.target_forwards, self.accepted_depths = other.target_forwards, other.accepted_depths
        other.drafted_nodes = other.draft_forwards = other.target_forwards = 0
        other.used, other.accepted_depths, other.rounds = np.zeros_like(other.used), [], 1

    def usage(self, plan: str) -> Usage:
        """The cost so far, under a plan of that name."""
        drafted_by = "+".join(sorted(self.drafted_by)) or "none"
        used = {origin.name.lower(): nodes for origin, nodes in zip(Origin, self.used.tolist(), strict=True) if nodes and origin in DRAFTED}
        written = 0 if self.request.thought is None else self.request.thought.written
        return Usage(
            prompt_tokens=self.request.own_tokens,
            cached_tokens=self.cached_tokens,
            target_forwards=written + self.target_forwards,
            draft_forwards=self.draft_forwards,
            drafted_nodes=self.drafted_nodes,
            used_by=used,
            accepted_depths=tuple(self.accepted_depths),
            plan=f"{plan}:{drafted_by}" if plan == "auto" else plan,
            thought_tokens=written,
            candidates=self.request.candidates,
            rounds=self.rounds,
        )
