"""Draft tasks: one search's round of drafting, from the beam that the target has selected down to the frontier below which it grows next.

Invariant: a task only adds nodes to its search's tree; those that an earlier round has left, and that the host knows, are taken up again
instead of being added twice.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from drafting.array_types import BoolArray, IntArray
from drafting.beam.forward import ForwardPart
from drafting.beam.rule import Normalisation, SearchRule, Tolerance
from drafting.beam.tree import Origin, SequenceState
from drafting.plans.given import Given, GivenPrefixes
from drafting.plans.plan import Action, DraftRound, most_proposals
from drafting.trie.arrays import find_in_array
from drafting.trie.eligibility import Eligibility
from drafting.trie.item_trie import ItemTrie


class Proposed(NamedTuple):
    """The proposals of the draft for one level in one round.

    Attributes:
        above: indices in the sequence of the prefixes below which the draft was asked.
        nodes: indices in the sequence of those proposals that were taken.
    """

    above: IntArray
    nodes: IntArray


class DraftedSearch(Protocol):
    """The part of a search that drafting uses; see `verification.search.BeamSearch`."""

    sequence: SequenceState
    eligibility: Eligibility
    rule: SearchRule
    normalise: Normalisation
    beam: IntArray
    ancestors: IntArray
    widths: tuple[int, ...]
    depth: int
    draft_forwards: int
    drafted_nodes: int
    drafted_by: set[str]
    proposed: dict[int, Proposed]
    given: Given
    offered: GivenPrefixes | None
    tolerance: Tolerance | None


@dataclass
class DraftTask:
    """The drafting of one search in one round.

    Attributes:
        round: the state by which the plan decides.
        action: how the next level grows.
        allocate: takes so many key/value slots for nodes.
        frontier: indices in the sequence of the prefixes below which the next level grows; the beam at first.
        is_read: True if the host knows which prefixes the frontier holds.
    """

    search: DraftedSearch
    round: DraftRound
    action: Action
    allocate: Callable[[int], IntArray]
    frontier: IntArray = field(init=False)
    is_read: bool = True

    def __post_init__(self) -> None:
        self.frontier = self.search.beam

    @property
    def frontier_slots(self) -> IntArray:
        """`[frontier]` int64, the key/value slots of the frontier."""
        return self.search.sequence.slots[self.frontier]

    @property
    def forward_part(self) -> ForwardPart:
        """The frontier, preceded by all tokens before it that the draft has not computed."""
        sequence = self.search.sequence
        return ForwardPart(sequence, np.concatenate([sequence.draft_uncomputed(self.search.ancestors), self.frontier]), len(self.frontier))

    def most_nodes(self, trie: ItemTrie) -> int:
        """The most prefixes that the next level may have: as many children as the frontier can have at most."""
        depth = self.round.next_depth
        return min(self.round.nodes * trie.max_children[depth - 1], trie.level_size(depth))

    def most_children(self, trie: ItemTrie) -> int:
        """The most children that are drafted: all of the frontier, or where that is not read, no more than are worth drafting."""
        most = self.most_nodes(trie)
        return most if self.is_read else min(most, most_proposals(self.round.widths[self.round.next_depth]))

    def new(self, trie_nodes: IntArray) -> BoolArray | None:
        """`[nodes]` bool, True for prefixes of the next depth that are not in the tree; None if the tree has none of that depth."""
        sequence = self.search.sequence
        known = sequence.trie_nodes[sequence.depths == self.round.next_depth]
        return find_in_array(trie_nodes, known) < 0 if len(known) else None

    def extend(self, trie_nodes: IntArray) -> BoolArray:
        """Make nodes of the next depth the frontier; those that an earlier round has left there, and the host knows, are taken up again.

        Returns:
            `[nodes]` bool, which of them are new.
        """
        sequence, depth, above = self.search.sequence, self.round.next_depth, self.frontier
        known = np.flatnonzero(sequence.depths == depth)
        indices = find_in_array(trie_nodes, sequence.trie_nodes[known])
        new: BoolArray = indices < 0
        added = int(np.count_nonzero(new))
        self.frontier = np.empty(len(new), np.int64)
        self.frontier[~new] = known[indices[~new]]
        origin = Origin.CHILDREN if self.action is Action.CHILDREN else Origin.BEAM
        self.frontier[new] = sequence.append(self.allocate(added), depth, trie_nodes[new], origin)
        if self.action is Action.BEAM and len(new):
            self.search.proposed[depth] = Proposed(above, self.frontier)
        self.search.drafted_nodes += added
        self.round.drafted += added
        self.round.levels += 1
        self.round.nodes = len(self.frontier)
        return new
