"""Soft labels: for each interaction that is predicted the items that could have stood in its place, and how likely each was."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from drafting.array_types import IntArray

ITEMS, SHARES = "soft_items", "soft_shares"


@dataclass(frozen=True)
class SoftLabels:
    """The soft labels of a training set.

    Attributes:
        positions: `[labels]` int64, the interactions that have any, ascending.
        items: `[labels, candidates]` int32 catalog indices; any where the share is 0.
        shares: `[labels, candidates]` float32, of each interaction summing to 1, or all 0 where nothing is known.
    """

    positions: IntArray
    items: npt.NDArray[np.int32]
    shares: npt.NDArray[np.float32]

    def of(self, positions: IntArray) -> dict[str, torch.Tensor]:
        """The part of a batch with labels on the interactions at `positions`: `ITEMS` and `SHARES`, `[labels, candidates]`."""
        rows = np.searchsorted(self.positions, positions)
        return {ITEMS: torch.from_numpy(self.items[rows]), SHARES: torch.from_numpy(self.shares[rows])}
