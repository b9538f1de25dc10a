"""Balanced clusters: their sizes, how near they are to the best ones, and that balance costs nothing where it holds already."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from drafting.catalog.balance import balanced_codes, balanced_kmeans
from drafting.catalog.codebooks import residual_kmeans
from drafting.catalog.nearest import nearest


def squared(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return ((points[:, None] - centroids[None]) ** 2).sum(axis=-1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 120), st.sampled_from(["spread", "clustered", "twins", "one"]))
def test_sizes_keep_to_their_bounds_whatever_the_points_are(seed: int, codes: int, more: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    count = codes + more
    points = rng.normal(size=(count, 3)).astype(np.float32)
    if kind == "clustered":
        points = 0.01 * points + rng.normal(size=(4, 3)).astype(np.float32)[rng.integers(4, size=count) ** 2 % 4]
    elif kind != "spread":
        points = points[rng.integers(min(count, 3) if kind == "twins" else 1, size=count)]
    centroids, found = balanced_kmeans(points, points[rng.permutation(count)[:codes]])
    sizes = np.bincount(found, minlength=codes)
    assert count // (2 * codes) <= sizes.min() <= sizes.max() <= -(-13 * count // (10 * codes))
    means = np.stack([points[found == code].mean(axis=0) if sizes[code] else centroids[code] for code in range(codes)])
    np.testing.assert_allclose(centroids, means, atol=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_the_choice_is_near_the_best_that_there_is(seed: int) -> None:
    """The best has the lowest sum of distances: an assignment of points to places, as many for each code as it must have points."""
    rng = np.random.default_rng(seed)
    codes, each = int(rng.integers(2, 9)), int(rng.integers(3, 12))
    points = (rng.normal(size=(codes * each, 4)) * rng.choice([0.3, 1, 3], size=(codes * each, 1))).astype(np.float32)
    centroids = rng.normal(size=(codes, 4)).astype(np.float32)
    away = squared(points, centroids)
    rows, places = linear_sum_assignment(np.repeat(away, each, axis=1))
    best = away[rows, places // each].sum()
    found = balanced_codes(points, centroids, each, each)
    assert (np.bincount(found) == each).all()
    cost = away[np.arange(len(points)), found].sum()
    assert best * 0.9999 <= cost <= 1.15 * best
    assert cost < 0.5 * (best + np.mean([away[np.arange(len(points)), rng.permutation(found)].sum() for _ in range(20)]))


@pytest.mark.parametrize("seed", range(5))
def test_where_the_nearest_keep_to_the_sizes_every_point_gets_its_nearest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centroids = rng.normal(size=(6, 5)).astype(np.float32)
    points = rng.normal(size=(400, 5)).astype(np.float32)
    expected = nearest(points, centroids)
    sizes = np.bincount(expected, minlength=6)
    np.testing.assert_array_equal(balanced_codes(points, centroids, sizes.min(), sizes.max()), expected)
    np.testing.assert_array_equal(balanced_codes(points, centroids, 0, len(points)), expected)


def test_who_would_lose_most_comes_first() -> None:
    centroids = np.array([[0.0], [1.0], [9.0]], np.float32)
    # All three are nearest to 0; the one at -1 has the furthest way to any other.
    points = np.array([[0.4], [-1.0], [0.2]], np.float32)
    assert balanced_codes(points, centroids, 1, 1).tolist() == [2, 0, 1]
    # Nobody need go to 9, so nobody does; at most two go to 0.
    assert balanced_codes(points, centroids, 0, 2).tolist() == [1, 0, 0]


def test_every_level_of_identifiers_is_balanced_and_the_same_again() -> None:
    rng = np.random.default_rng(0)
    embeddings = (rng.normal(size=(5, 8))[rng.choice(5, 600, p=[0.6, 0.2, 0.1, 0.05, 0.05])] + 0.2 * rng.normal(size=(600, 8))).astype(
        np.float32
    )
    embeddings[:80] = 0
    plain, found, again = (residual_kmeans(embeddings, levels=2, codes_per_level=12, balanced=balanced) for balanced in (False, True, True))
    np.testing.assert_array_equal(found.codes, again.codes)
    for level in range(2):
        sizes = np.bincount(found.codes[:, level], minlength=12)
        assert 25 <= sizes.min() <= sizes.max() <= 65
    assert np.bincount(plain.codes[:, 0], minlength=12).max() > 65
    first, second = found.codebooks.levels
    for centroids, codes, points in (
        (first, found.codes[:, 0], embeddings),
        (second, found.codes[:, 1], embeddings - first[found.codes[:, 0]]),
    ):
        np.testing.assert_allclose(centroids, np.stack([points[codes == code].mean(axis=0) for code in range(12)]), atol=1e-5)
