"""Helpers for data in CSR form: groups of rows in one flat array, with the start of each group in an array of offsets."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def offsets_of(counts: npt.ArrayLike) -> IntArray:
    """`[groups + 1]` int64, the start of each group of `counts` `[groups]` rows, and at the end the number of rows."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def ranges(starts: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]) -> IntArray:
    """The concatenated ranges of `counts` consecutive numbers from each of `starts`."""
    ends = np.cumsum(counts, dtype=np.int64)
    numbers: IntArray = np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
    return numbers
