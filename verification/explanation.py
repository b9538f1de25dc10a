"""Explanations of lists: the prefixes that a search considered, level by level, and what became of them.

Invariant: they hold plain numbers, and go over the wire from the engine process as they are. A prefix is named by an item that has it,
because nodes are numbered by each process for itself, items by the catalog.
"""

from dataclasses import dataclass

# Prefixes beside the beam that a level may tell: what a page can still show.
MOST_OTHERS = 100


@dataclass(frozen=True)
class ExplainedLevel:
    """One level of a search: its beam, best first, and then prefixes that did not come into it, the most likely first.

    The parent of each prefix is told on the level above it, or is the root.

    Attributes:
        forward: which forward of the target for this search has verified it; 1 for the first.
        accepted: True if all of the beam was in the tree already, so that the next level needed no forward of its own.
        considered: number of eligible continuations of the beam above, from which the target has selected.
        drafted, used: nodes that drafts had added here, and those of them that came into the beam: the level's part of the list's `Usage`.
        beam: number of prefixes in the beam.
        truncated: True if a continuation of the beam above, or a drafted prefix, is not told.
        items: for each prefix a catalog index of an item that has it.
        log_probs: cumulative log-probability of each, under the distribution that the list is ranked by or sampled from.
        is_drafted: whether a draft had added it before the target selected.
        is_candidate: whether it belongs to a candidate of a blended list, which was in the tree from the beginning.
    """

    forward: int
    accepted: bool
    considered: int
    drafted: int
    used: int
    beam: int
    truncated: bool
    items: tuple[int, ...]
    log_probs: tuple[float, ...]
    is_drafted: tuple[bool, ...]
    is_candidate: tuple[bool, ...]


@dataclass(frozen=True)
class Explanation:
    """The prefixes that the searches of a list considered.

    Attributes:
        searches: the levels of each search, from depth 1 on: of the list's, and of the one for its reserved places, if there are any.
    """

    searches: tuple[tuple[ExplainedLevel, ...], ...]
