"""One running search: its sequence, its beam and what it has cost so far.

Invariant: slots for a plain search are set aside when it starts, and a draft only takes others. So a search that has started
never runs out of memory half way.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from drafting.array_types import IntArray
from drafting.beam.rule import Normalisation, SearchRule
from drafting.beam.tree import SequenceState
from drafting.trie.eligibility import Eligibility
from drafting.trie.item_trie import ItemTrie
from verification.request import BeamRequest
from verification.result import Usage

NOTHING = np.empty(0, np.int64)


def beam_widths(request: BeamRequest, trie: ItemTrie) -> tuple[int, ...]:
    """Prefixes kept at each depth from the root on: no more than a level has nodes, and k at the last.

    Where candidates are scored there is no beam, and what a step has room for is set aside as one level.
    """
    if request.scored is not None:
        return 1, request.scored.nodes, 1
    asked = request.beam_widths or (request.beam_width,) * (trie.depth - 1)
    return tuple(min(width, trie.level_size(depth)) for depth, width in enumerate((1, *asked, request.k)))


@dataclass(eq=False)
class BeamSearch:
    """The state of one search.

    Attributes:
        rule: ranking of prefixes and verification of drafts.
        widths: prefixes kept at depth 0 (the root), 1, 2, ….
        eligibility: the trie nodes that the search may enter.
        cached_tokens: prompt tokens that were computed before, by other requests.
        shared_length: slots at the start of the sequence that this search does not own.
        beam: indices of the prefixes selected last, best first; the root at first.
        ancestors: indices of the prefixes selected before, without the root.
        depth: depth of the beam.
        drafts: whether its tree may be drafted.
        normalise: what its log-probabilities are normalised over.
        target_forwards, draft_forwards, drafted_nodes, used_nodes, accepted_depths: as in `Usage`.
        drafted_by: kinds of drafts that have added nodes: `beam`, `children`.
    """

    request: BeamRequest
    widths: tuple[int, ...]
    sequence: SequenceState
    eligibility: Eligibility
    cached_tokens: int = 0
    shared_length: int = 0
    rule: SearchRule = field(init=False)
    beam: IntArray = field(init=False)
    ancestors: IntArray = field(default_factory=lambda: NOTHING)
    depth: int = 0
    drafts: bool = True
    normalise: Normalisation = Normalisation.VOCABULARY
    target_forwards: int = 0
    draft_forwards: int = 0
    drafted_nodes: int = 0
    used_nodes: int = 0
    accepted_depths: list[int] = field(default_factory=list)
    drafted_by: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rule = self.request.rule
        self.beam = np.array([self.sequence.root])

    @property
    def last_depth(self) -> int:
        """The deepest level whose nodes are computed; the one below it is the list."""
        return len(self.widths) - 2

    @property
    def reserved_nodes(self) -> int:
        """Nodes that a plain search may still need."""
        return sum(self.widths[self.depth + 1 : -1])

    @property
    def undrafted(self) -> int:
        """Tokens before the beam that the draft has not computed."""
        drafted, root = self.sequence.drafted, self.sequence.root
        return root + len(self.ancestors) - int(drafted[:root].sum() + drafted[self.ancestors].sum())

    def computed_at(self, depth: int) -> IntArray:
        """Indices of the nodes at `depth` that the target has computed, newest first: where reading waits, rounds may repeat prefixes."""
        if depth > self.sequence.deepest:
            return NOTHING
        return np.flatnonzero(self.sequence.depths[: self.sequence.computed] == depth)[::-1]

    def descend(self, nodes: IntArray, drafted: IntArray, hits: IntArray, allocate: Callable[[int], IntArray]) -> None:
        """Make trie nodes, `[n]`, of the next level the beam.

        Args:
            drafted: indices of the drafted nodes.
            hits: `[n]`, where `nodes` stand among these; -1 for one that was not drafted and is appended to the sequence.
            allocate: takes node slots.
        """
        missing = hits < 0
        added = int(np.count_nonzero(missing))
        if self.depth:
            self.ancestors = np.concatenate([self.ancestors, self.beam])
        self.depth += 1
        self.beam = np.empty(len(nodes), np.int64)
        self.beam[missing] = self.sequence.append(allocate(added), self.depth, nodes[missing])
        if added == len(nodes):
            return
        self.beam[~missing] = drafted[hits[~missing]]
        # Candidates of a blend, which come first, are no drafts.
        self.used_nodes += int(np.count_nonzero(self.beam > self.sequence.root + self.request.blended_nodes)) - added
        if not added:
            self.accepted_depths.append(self.depth)

    def absorb(self, other: "BeamSearch") -> None:
        """Take over the cost of a search that ran beside this one: nodes add up, forwards were shared."""
        self.drafted_nodes += other.drafted_nodes
        self.used_nodes += other.used_nodes
        self.drafted_by |= other.drafted_by
        self.draft_forwards = max(self.draft_forwards, other.draft_forwards)
        if other.target_forwards > self.target_forwards:
            self.target_forwards, self.accepted_depths = other.target_forwards, other.accepted_depths

    def usage(self, plan: str) -> Usage:
        """The cost so far, under a plan of that name."""
        drafted_by = "+".join(sorted(self.drafted_by)) or "none"
        written = 0 if self.request.thought is None else self.request.thought.written
        return Usage(
            prompt_tokens=self.request.own_tokens,
            cached_tokens=self.cached_tokens,
            target_forwards=written + self.target_forwards,
            draft_forwards=self.draft_forwards,
            drafted_nodes=self.drafted_nodes,
            used_nodes=self.used_nodes,
            accepted_depths=tuple(self.accepted_depths),
            plan=f"{plan}:{drafted_by}" if plan == "auto" else plan,
            thought_tokens=written,
            candidates=self.request.candidates,
        )
