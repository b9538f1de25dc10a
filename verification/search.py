"""One running request: its beam, its tokens and what it has cost so far.

Invariant: slots for a plain search to the end are set aside when a request starts, and a draft only takes what nobody has set aside. A
request that has started can therefore never run out of memory half way.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from drafting.beam.sequence import SequenceState
from drafting.trie.eligibility import Eligibility
from drafting.trie.item_trie import ItemTrie
from verification.request import BeamRequest, Usage

IntArray = npt.NDArray[np.int64]

NOTHING = np.empty(0, np.int64)


def beam_widths(request: BeamRequest, trie: ItemTrie) -> tuple[int, ...]:
    """Prefixes kept at each depth, the root included; no level keeps more than it has nodes, and the last keeps what is asked for."""
    inner = [min(request.beam_width, trie.level_size(depth)) for depth in range(trie.depth)]
    return (*inner, min(request.k, trie.level_size(trie.depth)))


@dataclass
class BeamSearch:
    """The state of one request in the engine.

    Attributes:
        widths: prefixes kept at depth 0 (the root), 1, 2, ….
        columns: the prompt and the tree's nodes.
        eligibility: what the request may be given.
        beam: columns of the prefixes decided so far, best first; the root at first.
        ancestors: columns of the prefixes decided before those, the root not counted.
        cached_tokens: tokens of the prompt that an earlier request had computed.
        shared_length: slots at the start of the prompt that this search does not own.
        depth: the depth of the beam.
        target_forwards, draft_forwards: forwards that this request took part in.
        drafted_nodes, used_nodes: nodes that a draft has added, and how many of them a beam came to hold.
        accepted_depths: levels decided without a forward of their own.
        drafted_by: what kinds of drafting have added nodes: `beam`, `children`.
    """

    request: BeamRequest
    widths: tuple[int, ...]
    columns: SequenceState
    eligibility: Eligibility
    beam: IntArray = field(init=False)
    ancestors: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    cached_tokens: int = 0
    shared_length: int = 0
    depth: int = 0
    target_forwards: int = 0
    draft_forwards: int = 0
    drafted_nodes: int = 0
    used_nodes: int = 0
    accepted_depths: list[int] = field(default_factory=list)
    drafted_by: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.beam = np.array([self.columns.root])

    @property
    def last_depth(self) -> int:
        """The deepest level whose nodes are scored; the one below it is the list."""
        return len(self.widths) - 2

    @property
    def reserved_nodes(self) -> int:
        """Nodes that a plain search may still need."""
        return sum(self.widths[self.depth + 1 : -1])

    def drafted_at(self, depth: int) -> IntArray:
        """Columns of the nodes at `depth` that the target has scored."""
        if depth > self.columns.deepest:
            return NOTHING
        return np.flatnonzero(self.columns.depths[: self.columns.scored] == depth)

    def descend(self, beam: IntArray, hits: int) -> None:
        """Makes the next level's prefixes the beam; `hits` of them were there already."""
        if self.depth:
            self.ancestors = np.concatenate([self.ancestors, self.beam])
        self.beam = beam
        self.depth += 1
        self.used_nodes += hits
        if hits == len(beam):
            self.accepted_depths.append(self.depth)

    def absorb(self, other: "BeamSearch") -> None:
        """Takes over what a search has cost that has ended with this one, from the same step on.

        Nodes add up. Forwards were shared, so those of the search that took more of them are all that there were.
        """
        self.drafted_nodes += other.drafted_nodes
        self.used_nodes += other.used_nodes
        self.drafted_by |= other.drafted_by
        self.draft_forwards = max(self.draft_forwards, other.draft_forwards)
        if other.target_forwards > self.target_forwards:
            self.target_forwards, self.accepted_depths = other.target_forwards, other.accepted_depths

    def usage(self, plan: str) -> Usage:
        """What the search has cost so far under a plan of that name."""
        made = "+".join(sorted(self.drafted_by)) or "none"
        return Usage(
            prompt_tokens=len(self.request.prompt),
            cached_tokens=self.cached_tokens,
            target_forwards=self.target_forwards,
            draft_forwards=self.draft_forwards,
            drafted_nodes=self.drafted_nodes,
            used_nodes=self.used_nodes,
            accepted_depths=tuple(self.accepted_depths),
            plan=f"{plan}:{made}" if plan == "auto" else plan,
        )
