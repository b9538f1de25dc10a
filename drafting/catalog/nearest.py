"""Which centroids are nearest to points, some rows at a time.

Invariant: the same points and centroids give the same answer, whatever other points are asked about.
"""

import numpy as np
import numpy.typing as npt

from drafting.array_types import BoolArray, FloatArray, IntArray

_ROWS_AT_ONCE = 8192


def distances(points: FloatArray, centroids: FloatArray) -> FloatArray:
    """Squared distances `[points, codes]` minus the squared norms of the points, which do not matter within a row."""
    norms: FloatArray = (centroids * centroids).sum(axis=1)
    return norms - 2 * points @ centroids.T


def nearest(points: FloatArray, centroids: FloatArray) -> npt.NDArray[np.intp]:
    """The code of the nearest centroid of each point, `[points]`."""
    parts = [distances(points[row : row + _ROWS_AT_ONCE], centroids).argmin(axis=1) for row in range(0, len(points), _ROWS_AT_ONCE)]
    return np.concatenate(parts)


def nearest_and_regret(points: FloatArray, centroids: FloatArray, is_open: BoolArray) -> tuple[IntArray, FloatArray]:
    """The nearest open centroid of each point, `[points]`, and how much further the next one is, `[points]`; infinite if there is none.

    Args:
        is_open: `[codes]`, at least one of them True.
    """
    codes, regrets = np.empty(len(points), np.int64), np.empty(len(points), np.float32)
    for start in range(0, len(points), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        found = distances(points[part], centroids)
        found[:, ~is_open] = np.inf
        rows = np.arange(len(found))
        codes[part] = best = found.argmin(axis=1)
        lowest = found[rows, best]
        found[rows, best] = np.inf
        regrets[part] = found.min(axis=1) - lowest
    return codes, regrets
