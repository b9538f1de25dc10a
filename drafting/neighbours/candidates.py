"""Candidates for a blended list: the items that a neighbour model proposes, by the indices of one catalog.

Invariant: a candidate is an item of the catalog that may be returned, so nothing is scored in vain. Items that the model does not know,
such as new ones, are passed over in histories and never proposed. Nothing but numpy is needed, for the API process does this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from drafting.array_types import BoolArray, DoubleArray, IntArray
from drafting.catalog.catalog import Catalog
from drafting.neighbours.model import NeighbourModel, best

CANDIDATES = 100
MOST_CANDIDATES = 256


@dataclass(frozen=True, eq=False)
class CatalogNeighbours:
    """A neighbour model over one version of a catalog.

    Attributes:
        in_catalog: `[model's items]` int64 catalog indices; -1 for an item that the catalog does not have.
        in_model: `[catalog items]` int64 indices of the model; -1 for an item that it does not know.
    """

    model: NeighbourModel
    in_catalog: IntArray
    in_model: IntArray

    @classmethod
    def of(cls, model: NeighbourModel, catalog: Catalog) -> "CatalogNeighbours":
        """The model's items are looked up by name."""
        in_catalog = catalog.indices_of(model.item_ids)
        in_model = np.full(len(catalog), -1)
        there = np.flatnonzero(in_catalog >= 0)
        in_model[in_catalog[there]] = there
        return cls(model, in_catalog, in_model)

    @cached_property
    def known(self) -> int:
        """Number of items of the catalog that the model knows."""
        return int(np.count_nonzero(self.in_model >= 0))

    def candidates(
        self,
        history: npt.ArrayLike,
        count: int = CANDIDATES,
        excluded: npt.ArrayLike = (),
        allowed: Callable[[IntArray], BoolArray] | None = None,
    ) -> tuple[IntArray, DoubleArray]:
        """The best `count` items that follow from a history and may be returned, and their scores, best first.

        Args:
            history: `[items]` catalog indices, oldest first.
            excluded: `[items]` catalog indices of items that must not be returned.
            allowed: which of some items, `[items]` catalog indices, may be returned; None for all.
        """
        known = self.in_model[np.asarray(history, np.int64)]
        items, scores = self.model.scores(known[known >= 0])
        items = self.in_catalog[items]
        may = (items >= 0) & ~np.isin(items, np.asarray(excluded, np.int64))
        items, scores = items[may], scores[may]
        if allowed is not None:
            may = allowed(items)
            items, scores = items[may], scores[may]
        return best(items, scores, count)


@dataclass(frozen=True, eq=False)
class Blending:
    """How lists of one catalog are blended.

    Attributes:
        weight: of the logarithm of neighbour scores beside log-probabilities.
        count: the most candidates.
        every: list all that is ranked, not the best k alone, so that other weights can rank it anew.
    """

    neighbours: CatalogNeighbours
    weight: float
    count: int = CANDIDATES
    every: bool = False
