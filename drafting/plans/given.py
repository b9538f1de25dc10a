"""Given drafts: prefixes that need no model to be proposed, and are in a request's tree from its first forward on.

Two sources give them. *Items*: a retriever's best items, whose identifiers' prefixes may be what the target keeps. *Last*: what the target
kept and nearly kept when it was last asked for the same user, most of which it will keep again.

Invariant: a set of given drafts is a tree by itself: with each prefix it holds all prefixes above that one but the root. Given drafts
change no list, as no drafts do. Nothing but numpy is needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto
from functools import reduce
from operator import or_

import numpy as np

from drafting.array_types import BoolArray, IntArray
from drafting.beam.rule import Verification
from drafting.trie.arrays import TrieArrays, find_sorted


class Given(Flag):
    """Sources of given drafts, any number of them together."""

    NONE = 0
    LAST = auto()
    ITEMS = auto()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sources, as plans and usage call them."""
        return tuple(str(source.name).lower() for source in self)


@dataclass(frozen=True)
class GivenPrefixes:
    """The prefixes that each source proposes for one search.

    Attributes:
        nodes: for each choice of sources, `[n]` int64 trie nodes between root and leaves, ascending, which also orders them by depth. No
            choice is empty.
    """

    nodes: Mapping[Given, IntArray]

    @classmethod
    def of(cls, last: IntArray, items: IntArray) -> "GivenPrefixes":
        """The prefixes of a search from the nodes that each source proposes; where both propose some, their union is a third choice."""
        nodes = {source: found for source, found in ((Given.LAST, last), (Given.ITEMS, items)) if len(found)}
        if len(nodes) > 1:
            nodes[Given.LAST | Given.ITEMS] = np.union1d(last, items)
        return cls(nodes)

    @property
    def sizes(self) -> dict[Given, int]:
        """Number of nodes of each choice."""
        return {source: len(nodes) for source, nodes in self.nodes.items()}

    def covers(self, beam: IntArray) -> dict[Given, BoolArray]:
        """For each choice, `[n]` bool: which prefixes of a beam, `[n]` int64 trie nodes, are among its nodes."""
        return {source: find_sorted(beam, nodes) >= 0 for source, nodes in self.nodes.items()}


def sources_of(given: GivenPrefixes | None) -> Given:
    """All sources that propose something for a search."""
    return Given.NONE if given is None else reduce(or_, given.nodes)


@dataclass(frozen=True)
class GivenOutcome:
    """Whether a choice of sources holds all that the target has selected at a level, so that the level is accepted if they are in the tree.

    Attributes:
        source: the choice of sources.
        width, depth: number of prefixes that the target keeps at the level, and its depth.
        levels: number of consecutive levels right above this one that the sources hold, too.
        covered: True if they hold this one.
        verification: how drafts are verified.
    """

    source: Given
    width: int
    depth: int
    levels: int
    covered: bool
    verification: Verification = Verification.STRICT


def outcomes_of(
    given: GivenPrefixes, beam: IntArray, depth: int, covered: dict[Given, int], verification: Verification = Verification.STRICT
) -> list[GivenOutcome]:
    """The outcome of each choice of sources at the next level that the target has selected.

    Args:
        beam: `[n]` int64, the prefixes of the level.
        covered: for each choice, the number of consecutive levels right above this one that it holds; written to, to include this one.
    """
    outcomes = []
    for source, held in given.covers(beam).items():
        holds_all, before = bool(held.all()), covered.get(source, 0)
        outcomes.append(GivenOutcome(source, len(beam), depth, before, holds_all, verification))
        covered[source] = before + 1 if holds_all else 0
    return outcomes


def prefixes_of(trie: TrieArrays, items: IntArray) -> IntArray:
    """The trie nodes between root and leaves on the way to items, `[items]` catalog indices; ascending."""
    nodes: IntArray = np.unique(trie.paths(trie.leaf_of_item[items].astype(np.int64))[:, :-1])
    return nodes
