"""Sorting many numbers in time that grows as they do.

Invariant: the order is the same whoever sorts. PyTorch's sort of integers is a radix sort, several times faster than NumPy's for millions
of them, but loading PyTorch takes a second and much memory: a process that has no other use for it sorts what is small without.
"""

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int32]

RADIX_FROM = 1 << 21
_SIGN = np.uint64(1 << 63)


def stable_order(keys: npt.NDArray[np.uint64]) -> Rows:
    """The rows in ascending order of their keys, equal keys as they stand: `[rows]` int32 of `[rows]`, at most 2^31."""
    if len(keys) < RADIX_FROM:
        return np.argsort(keys, kind="stable").astype(np.int32)
    import torch

    # PyTorch sorts no unsigned numbers; with the highest bit turned over, signed ones have the same order.
    order: Rows = torch.from_numpy((keys ^ _SIGN).view(np.int64)).sort(stable=True).indices.int().numpy()
    return order
