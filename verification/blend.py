"""The other half of a blended list: the items that a neighbour model proposes, with its scores of them.

A blended list ranks every identifier by `log-probability + weight * log(neighbour score)`. An identifier has the best score of its items
that were proposed; one without any has the *floor*, half the lowest score of all that were.

Invariant: with the floor, the k best of all are among the k best of the target and the candidates. Reason: of two identifiers that were not
proposed, the target's order decides, and one that was proposed never ranks below one that the target likes less and that was not. So the
target's own list and the candidates' log-probabilities suffice for the list that a ranking of the whole catalog would give; and since a
factor of all scores moves all ranks alike, their unit does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drafting.array_types import DoubleArray, FloatArray, IntArray
from drafting.neighbours.candidates import Blending
from drafting.prompts.user_state import UserState
from drafting.trie.arrays import TrieArrays, find_sorted, unshared_prefixes
from drafting.trie.item_set import ItemSet


@dataclass(frozen=True, eq=False)
class Blend:
    """The candidates of one request, by identifier.

    Attributes:
        weight: of the neighbour model's logarithms, positive.
        items: number of items that were proposed.
        paths: `[identifiers, depth]` int64, the trie nodes of each candidate's identifier, from depth 1 to the leaf; ascending by leaf.
        scores: `[identifiers]` float64, positive.
        every: as of `Blending`.
    """

    weight: float
    items: int
    paths: IntArray
    scores: DoubleArray
    every: bool = False

    @classmethod
    def of(cls, trie: TrieArrays, items: IntArray, scores: DoubleArray, weight: float, every: bool = False) -> "Blend":
        """Candidates by catalog index.

        Args:
            items: `[items]` int64, each at most once.
            scores: `[items]`.

        Raises:
            ValueError: the weight or a score is not positive and finite, or an item is not in the catalog; the message is a sentence.
        """
        if not 0 < weight < np.inf:
            raise ValueError(f"The weight of a blend must be positive and finite, got {weight}.")
        if items.shape != scores.shape or not (np.isfinite(scores) & (scores > 0)).all():
            raise ValueError("Every candidate of a blend needs a positive, finite score.")
        if len(items) and not 0 <= items.min() <= items.max() < len(trie.items):
            raise ValueError(f"A candidate of a blend is an item that the catalog of {len(trie.items)} items does not have.")
        leaves, group = np.unique(trie.leaf_of_item[items], return_inverse=True)
        best = np.zeros(len(leaves))
        np.maximum.at(best, group, scores)
        return cls(weight, len(items), trie.paths(leaves), best, every)

    @classmethod
    def after(
        cls,
        history: object,
        blend: "Blend | Blending | None",
        trie: TrieArrays,
        excluded: Sequence[int] | IntArray,
        allowed: ItemSet | None,
    ) -> "Blend | None":
        """The blend of a request: the one that it brings, or the candidates that a neighbour model finds for its history.

        Args:
            history: catalog indices, oldest first, or a `UserState`, of whose behaviours candidates follow where it has no events.
            excluded: catalog indices of items that must not be returned.
            allowed: the only items that may be returned; None allows all.

        Raises:
            ValueError: as `of`, or the history is a prompt, of which no candidates follow.
        """
        if not isinstance(blend, Blending):
            return blend
        if isinstance(history, UserState):
            met = history.events or [event for events in history.behaviours.values() for event in events]
            history = [event.item for event in met]
        if not isinstance(history, Sequence | np.ndarray):
            raise ValueError("Candidates follow from a history, which a prompt does not tell: give a Blend.")
        may = None if allowed is None else allowed.contains
        return cls.of(trie, *blend.neighbours.candidates(history, blend.count, excluded, may), blend.weight, blend.every)

    @property
    def floor(self) -> float:
        """The score of what was not proposed, where anything was."""
        return float(self.scores.min()) / 2

    @cached_property
    def prefixes(self) -> int:
        """Number of distinct prefixes between the root and the candidates' leaves."""
        return int(unshared_prefixes(self.paths).sum())

    def ranking(self, leaves: IntArray, log_probs: FloatArray) -> DoubleArray:
        """`[leaves]`, what the leaves, trie nodes in any order, are ranked by; the log-probabilities where there are no candidates."""
        ranking = log_probs.astype(np.float64)
        if not len(self.paths):
            return ranking
        rows = find_sorted(leaves, self.paths[:, -1])
        ranking += self.weight * np.log(np.where(rows < 0, self.floor, self.scores[rows]))
        return ranking
