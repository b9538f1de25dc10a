"""Truncated singular value decomposition of sparse matrices, and rows of unit length.

Invariant: the same matrix and seed give the same factors, up to the rounding of floats. A row that says nothing in the directions that are
kept is zero, and not what rounding has left of it.
"""

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from drafting.array_types import FloatArray

# So much smaller than the largest of them, a singular value or a row of factors is what rounding has left in float64.
_ROUNDING = 1e-10


def left_factors(matrix: csr_array, dims: int, seed: int, power: float = 1.0) -> FloatArray:
    """The left singular vectors times the singular values to a power, largest first: `[rows, dims]` float32, fewer of a small matrix;
    zeros of one that says nothing.

    Args:
        power: with 1 the products of the factors approximate those of the rows; with 0.5 the entries of a symmetric matrix, as far as its
            eigenvalues are positive.
    """
    smallest = min(matrix.shape)
    if not matrix.count_nonzero():
        # ARPACK finds no direction in it.
        return np.zeros((matrix.shape[0], min(dims, smallest)), np.float32)
    exact = matrix.astype(np.float64)
    if dims >= smallest:
        left, values, _ = np.linalg.svd(exact.toarray(), full_matrices=False)
    else:
        start = np.random.default_rng(seed).uniform(-1, 1, smallest)
        left, values, _ = svds(exact, k=dims, v0=start)
        left, values = left[:, ::-1], values[::-1]
    factors = left * np.where(values > _ROUNDING * values[0], values, 0.0) ** power
    lengths = np.linalg.norm(factors, axis=1)
    # Or `unit_rows` would make a random direction of it.
    factors[lengths < _ROUNDING * lengths.max()] = 0.0
    return np.ascontiguousarray(factors, np.float32)


def unit_rows(matrix: FloatArray) -> FloatArray:
    """The rows scaled to length one; rows of zeros stay."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    scaled: FloatArray = matrix / np.where(lengths > np.finfo(np.float32).tiny, lengths, np.float32(1))
    return scaled
