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
        """The names of the sources in it, as plans and usage have them."""
        return tuple(str(source.name).lower() for source in self)


@dataclass(frozen=True)
class GivenPrefixes:
    """The prefixes that each source proposes for one search.

    Attributes:
        nodes: by source, `[n]` int64 trie nodes between root and leaves, ascending and so by depth; none is empty.
    """

    nodes: Mapping[Given, IntArray]

    @classmethod
    def of(cls, last: IntArray, items: IntArray) -> "GivenPrefixes":
        """From the nodes that each source proposes, perhaps none; where both propose some, their union is a third choice."""
        nodes = {source: found for source, found in ((Given.LAST, last), (Given.ITEMS, items)) if len(found)}
        if len(nodes) > 1:
            nodes[Given.LAST | Given.ITEMS] = np.union1d(last, items)
        return cls(nodes)

    @property
    def sizes(self) -> dict[Given, int]:
        """Nodes of each choice."""
        return {source: len(nodes) for source, nodes in self.nodes.items()}

    def covers(self, beam: IntArray) -> dict[Given, BoolArray]:
        """Which prefixes of a beam are given, `[n]` bool, by choice."""
        return {source: find_sorted(beam, nodes) >= 0 for source, nodes in self.nodes.items()}


def sources_of(given: GivenPrefixes | None) -> Given:
    """All sources that propose something for a search."""
    return Given.NONE if given is None else reduce(or_, given.nodes)


@dataclass(frozen=True)
class GivenOutcome:
    """Whether a source holds a level that the target has selected, so that it would have been accepted with the source in the tree.

    Attributes:
        source: the choice of sources.
        width, depth: prefixes that the target keeps, and of which level.
        levels: levels above it, one after the other, whose beams the source holds.
        covered: whether it holds this one.
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
        covered: levels above it, one after the other, that a choice holds; brought up to this one.
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
