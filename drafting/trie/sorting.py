"""Stable sort of integer keys, with PyTorch's radix sort for large arrays.

Invariant: NumPy and PyTorch give the same order. PyTorch is several times faster for millions of keys, but importing it costs a second and
much memory, so small arrays are sorted by NumPy.
"""

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int32]

RADIX_FROM = 1 << 21
_SIGN = np.uint64(1 << 63)


def stable_order(keys: npt.NDArray[np.uint64]) -> Rows:
    """Row numbers in ascending order of `keys` `[rows]`, `[rows]` int32, at most 2^31; equal keys keep their order."""
    if len(keys) < RADIX_FROM:
        return np.argsort(keys, kind="stable").astype(np.int32)
    import torch

    # PyTorch does not sort unsigned numbers; with the highest bit flipped, signed numbers have the same order.
    order: Rows = torch.from_numpy((keys ^ _SIGN).view(np.int64)).sort(stable=True).indices.int().numpy()
    return order
