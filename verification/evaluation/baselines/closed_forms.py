"""Baselines that are computed at once: most popular items, co-occurrence, and neighbour models (item-kNN and EASE with recency weights).

Invariant: scores are one product, of the decayed histories with a matrix `[items, items]`; popularity alone has no user in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from drafting.alignment.data.interactions import Interactions
from drafting.array_types import FloatArray
from drafting.neighbours.build import Weights, ease, largest
from drafting.neighbours.decayed import decayed
from drafting.neighbours.knn import knn
from verification.evaluation.baselines.ranking import CHOSEN_AT, Scorer, merit, quality_of, ranked_lists
from verification.evaluation.report import Quality
from verification.evaluation.users import HeldOut

WINDOW = 50
RECENT_ITEMS = 20
# A served model gives candidates, not lists: it is judged at the length of those that a target is taught. Deeper lists also tell settings
# apart that differ in a few hits at 10.
CANDIDATES_AT = 50
DECAYS = (0.5, 0.7, 0.8, 0.9)
# kNN adds it to the denominator, EASE regularises by it; the first of each is used where there is nothing to choose it by.
STRENGTHS: Mapping[str, tuple[float, ...]] = {"knn": (0.0, 10.0, 50.0), "ease": (300.0, 100.0, 1000.0)}
STRENGTH_NAMES = {"knn": "shrink", "ease": "l2"}


@dataclass(frozen=True)
class NeighbourSettings:
    """The settings of a neighbour model.

    Attributes:
        kind: `knn` or `ease`.
        strength: the shrinkage of kNN, the l2 of EASE.
        decay, window: as of `NeighbourModel`.
    """

    kind: str
    strength: float
    decay: float
    window: int = WINDOW

    def __str__(self) -> str:
        return f"{STRENGTH_NAMES[self.kind]} {self.strength:g}, decay {self.decay:g}"

    def weights(self, known: Interactions, items: int, kept: int | None = None) -> Weights:
        """The matrix of what is known, `[items, items]`, with the `kept` largest weights of each row, or all."""
        return next(_matrices(self.kind, known, items, (self.strength,), kept))


def _matrices(kind: str, known: Interactions, items: int, strengths: Sequence[float], kept: int | None) -> Iterator[Weights]:
    """A matrix for each strength; no more than one that is dense is held here."""
    if kind == "knn":
        yield from knn(known, items, strengths, kept)
        return
    for strength in strengths:
        yield ease(known, items, strength) if kept is None else largest(ease(known, items, strength), kept)


@dataclass(frozen=True)
class Tried:
    """Settings, and what validation users say of them at one length."""

    settings: NeighbourSettings
    quality: Quality


def most_popular(users: HeldOut, items: int) -> Scorer:
    """The number of each item's interactions of the kind that is predicted, the same for all users."""
    counts = np.bincount(users.known.items[users.known.labels], minlength=items).astype(np.float32)
    return lambda rows: np.repeat(counts[None], len(rows), axis=0)


def co_occurring(users: HeldOut, items: int, kept: int | None = None) -> Scorer:
    """The sum of cosine similarities to the user's last items, each once; `kept` as of `NeighbourSettings.weights`."""
    once = decayed_histories(users, items, 1.0, RECENT_ITEMS)
    once.data[:] = 1.0
    return product(once, knn(users.known, items, (0.0,), kept)[0])


def neighbour_scores(users: HeldOut, weights: Weights, decay: float, window: int) -> Scorer:
    """The scores of a neighbour model with the matrix `weights`."""
    return product(decayed_histories(users, weights.shape[0], decay, window), weights)


def decayed_histories(users: HeldOut, items: int, decay: float, window: int) -> csr_array:
    """The newest `window` items of each history, the j-th newest with `decay**j`, `[users, items]` float32; equal items are summed."""
    last = users.windows.last
    matrix = decayed(users.joined.items, np.maximum(users.windows.first, last - window), last, decay, items).astype(np.float32)
    matrix.sum_duplicates()
    return matrix


def product(histories: csr_array, weights: Weights) -> Scorer:
    """Scores as the product of two matrices, some users at a time."""

    def scores(rows: range) -> FloatArray:
        found = histories[rows.start : rows.stop] @ weights
        dense: FloatArray = found if isinstance(found, np.ndarray) else found.toarray()
        return dense

    return scores


def try_settings(
    users: HeldOut,
    items: int,
    kind: str,
    kept: int | None = None,
    decays: Sequence[float] = DECAYS,
    window: int = WINDOW,
    at: int = CHOSEN_AT,
    *,
    keep_seen: bool = False,
) -> Iterator[Tried]:
    """Try the settings of a kind on validation users; a matrix is made once for all decays.

    Args:
        kept: how many of the largest weights of each row, as a served model has them; all by default.
        at: length of the lists that are judged.
        keep_seen: keep what the users have met in these.
    """
    matrices = _matrices(kind, users.known, items, STRENGTHS[kind], kept)
    for strength in STRENGTHS[kind]:
        # A dense matrix takes all the memory that was checked: the last one is gone before the next is made.
        weights: Weights | None = None
        weights = next(matrices)
        for decay in decays:
            lists = ranked_lists(users, neighbour_scores(users, weights, decay, window), at, keep_seen=keep_seen)
            yield Tried(NeighbourSettings(kind, strength, decay, window), quality_of(users, lists, at))


def best_of(tried: Sequence[Tried]) -> Tried:
    """The settings with the highest merit, the first of equal ones."""
    return max(tried, key=lambda each: merit(each.quality))
