"""Balanced clusters: k-means whose clusters are neither small nor large.

Invariant: every size is at least half the mean, rounded down, and at most 1.3 times the mean, rounded up; where the nearest centroids keep
to that, every point gets its nearest. Narrower bounds would put more points with strangers. The same points and centroids give the same
clusters.

Points choose in rounds: each asks for its nearest centroid that has room, and where too many ask, those come first that would lose most by
their second choice. Enough points are kept back for clusters that are too small.
"""

import numpy as np

from drafting.array_types import FloatArray, IntArray
from drafting.catalog.nearest import nearest_and_regret

_ROUNDS = 10


def balanced_kmeans(points: FloatArray, centroids: FloatArray) -> tuple[FloatArray, IntArray]:
    """Centroids `[codes, dims]` float32, each the mean of its cluster, and the code of each point, `[points]`.

    Args:
        points: `[points, dims]`, at least as many as centroids.
        centroids: `[codes, dims]` to begin with.
    """
    from threadpoolctl import threadpool_limits

    low, high = len(points) // (2 * len(centroids)), -(-13 * len(points) // (10 * len(centroids)))
    codes = np.full(len(points), -1)
    # Floats are summed in another order on more threads, which may move a point between two clusters.
    with threadpool_limits(limits=1):
        for _ in range(_ROUNDS):
            before, codes = codes, balanced_codes(points, centroids, low, high)
            if (codes == before).all():
                break
            centroids = _means(points, codes, centroids)
    return centroids, codes


def balanced_codes(points: FloatArray, centroids: FloatArray, low: int, high: int) -> IntArray:
    """A code of each point, `[points]`, so that each centroid has `low` to `high` points; there must be as many as that takes."""
    codes, sizes, free = np.full(len(points), -1), np.zeros(len(centroids), np.int64), np.arange(len(points))
    while len(free):
        # Points that no cluster needs to come up to its lowest size.
        spare = len(free) - int(np.maximum(low - sizes, 0).sum())
        wanted, regret = nearest_and_regret(points[free], centroids, sizes < (high if spare else low))
        order = np.lexsort((-regret, wanted))
        wanted, regret = wanted[order], regret[order]
        starts = np.searchsorted(wanted, wanted)
        size = sizes[wanted] + np.arange(len(wanted)) - starts
        takes = size < high
        beyond = np.flatnonzero(takes & (size >= low))
        takes[beyond[np.argsort(-regret[beyond], kind="stable")[spare:]]] = False
        codes[free[order[takes]]] = wanted[takes]
        sizes += np.bincount(wanted[takes], minlength=len(sizes))
        free = free[np.sort(order[~takes])]
    return codes


def _means(points: FloatArray, codes: IntArray, centroids: FloatArray) -> FloatArray:
    """The mean of each cluster, `[codes, dims]`; the centroid itself of an empty one."""
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=len(centroids))
    filled = sizes > 0
    means = centroids.copy()
    starts = (np.cumsum(sizes) - sizes)[filled]
    means[filled] = np.add.reduceat(points[order], starts, axis=0, dtype=np.float64) / sizes[filled, None]
    return means
