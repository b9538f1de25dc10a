"""The neighbour model: a sparse item-item matrix that scores items by the newest items of a history.

An item's score is the sum, over the newest `window` items of the history, of the weight of the item among the neighbours of each, times
`decay` to the power of how many items came after it.

Invariant: weights are positive and finite and neighbours ascend within a row, so every item that is returned has a positive, finite score,
and the same history gives the same scores in every process. This file needs nothing but numpy, for the API process reads it too; the
matrix is made in `build.py`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from drafting.alignment.data.fit import FITS
from drafting.array_types import DoubleArray, IntArray
from drafting.catalog.text_column import TextColumn
from drafting.errors import SetupError, check_file
from drafting.mapped_arrays import Arrays, digest_of, map_arrays, reading, save_arrays
from drafting.neighbours.source import Source
from drafting.trie.arrays import ranges

SUFFIX = ".neighbours.safetensors"
KINDS = ("ease", "knn")
_FORM = "atspeed-neighbours-1"
# Above so many items for each weight that is summed, sums are not kept in an array of all items.
_SPARSE_FROM = 64


class NeighbourError(SetupError):
    """A neighbour model cannot be made or used; the message is a sentence."""


@dataclass(frozen=True, eq=False)
class NeighbourModel:
    """The neighbours of every item as a matrix in CSR form.

    Attributes:
        item_ids: the items, by the index that the model knows them by; a catalog may number them otherwise.
        indptr: `[items + 1]` int64; the neighbours of item i are neighbours[indptr[i]] up to neighbours[indptr[i + 1]].
        neighbours: `[weights]` int32, indices of items, ascending within each row.
        weights: `[weights]` float32, positive.
        decay: weight of a history's item relative to that of the one after it; above 0, at most 1.
        window: how many of the newest items count.
        kind: what the weights are, one of `KINDS`.
        fit: the interactions that the weights were made from, one of `FITS`; an evaluation refuses those that hold its labels.
        source: which data these are, and how they were split; None if that is not known. See `check_source`.
    """

    item_ids: TextColumn
    indptr: IntArray
    neighbours: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    decay: float
    window: int
    kind: str
    fit: str = "all"
    source: Source | None = None

    def __post_init__(self) -> None:
        """Check that the arrays fit together, whoever made them.

        Raises:
            ValueError: they don't; the message says what is wrong.
        """
        if [array.dtype.name for array in (self.indptr, self.neighbours, self.weights)] != ["int64", "int32", "float32"]:
            raise ValueError("indptr must be int64, neighbours int32 and weights float32")
        items, rows = len(self.item_ids), np.diff(self.indptr)
        if self.indptr.shape != (items + 1,) or self.indptr[0] != 0 or (rows < 0).any():
            raise ValueError(f"indptr must be {items + 1:,} offsets that begin with 0 and never descend")
        if self.neighbours.shape != self.weights.shape or self.neighbours.shape != (self.indptr[-1],):
            raise ValueError(f"neighbours and weights must have {self.indptr[-1]:,} entries each")
        if not ((self.neighbours >= 0) & (self.neighbours < items)).all():
            raise ValueError(f"neighbours must be items, from 0 up to {items - 1:,}")
        begins = np.zeros(len(self.neighbours) + 1, np.bool_)
        begins[self.indptr] = True
        if (np.diff(self.neighbours)[~begins[1:-1]] <= 0).any():
            raise ValueError("neighbours of an item must ascend")
        if not (np.isfinite(self.weights) & (self.weights > 0)).all():
            raise ValueError("weights must be positive and finite")
        if not 0 < self.decay <= 1 or self.window < 1:
            raise ValueError("decay must be above 0 and at most 1, and window at least 1")
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}")
        if self.fit not in FITS:
            raise ValueError(f"fit must be one of {', '.join(FITS)}")

    def __len__(self) -> int:
        return len(self.item_ids)

    def scores(self, history: IntArray) -> tuple[IntArray, DoubleArray]:
        """The items that follow from a history, and their scores.

        Args:
            history: `[items]` model indices, oldest first.

        Returns:
            model indices `[found]`, ascending, and positive scores `[found]`; items of the history are among them.
        """
        newest = history[-self.window :]
        first = self.indptr[newest]
        counts = self.indptr[newest + 1] - first
        entries = ranges(first, counts)
        ages = np.arange(len(newest))[::-1]
        found, weights = self.neighbours[entries], self.weights[entries] * np.repeat(self.decay**ages, counts)
        if len(self) > _SPARSE_FROM * len(found):
            items, group = np.unique(found.astype(np.int64), return_inverse=True)
            totals: DoubleArray = np.bincount(group, weights, len(items)).astype(np.float64, copy=False)
            return items[totals > 0], totals[totals > 0]
        totals = np.bincount(found, weights, len(self)).astype(np.float64, copy=False)
        items = np.flatnonzero(totals > 0)
        return items, totals[items]

    def save(self, path: Path) -> None:
        """Write the model as safetensors, which `load` maps.

        Raises:
            OSError: the file cannot be written.
        """
        header, arrays = self._contents()
        save_arrays(arrays, header | {"digest": digest_of(header, arrays)}, path)

    @property
    def digest(self) -> str:
        """The hash of all that the model is made of."""
        return digest_of(*self._contents())

    def _contents(self) -> tuple[dict[str, str], Arrays]:
        arrays: Arrays = {
            "items.offsets": self.item_ids.offsets,
            "items.data": self.item_ids.data,
            "indptr": self.indptr,
            "neighbours": self.neighbours,
            "weights": self.weights,
        }
        header = {"form": _FORM, "kind": self.kind, "fit": self.fit, "decay": repr(self.decay), "window": str(self.window)}
        if self.source is not None:
            header["source"] = self.source.encode()
        return header, arrays

    @classmethod
    def load(cls, path: Path) -> "NeighbourModel":
        """Map what `save` wrote, after reading all of it once and checking it.

        Raises:
            NeighbourError: the file is missing, cut off, damaged or something else.
        """
        check_file(path, "The neighbour model", NeighbourError)
        with reading(path, "The neighbour model", "neighbour model", _AGAIN, NeighbourError):
            header, arrays = map_arrays(path)
            digest = header.pop("digest", None)
            if header["form"] != _FORM:
                raise NeighbourError(f"{path} is no neighbour model of this version of atspeed: {_AGAIN}.")
            if digest != digest_of(header, arrays):
                raise NeighbourError(f"{path} is damaged, its contents have another digest than it says: {_AGAIN}, or bring it again.")
            return cls(
                item_ids=TextColumn(arrays["items.offsets"], arrays["items.data"]),
                indptr=arrays["indptr"],
                neighbours=arrays["neighbours"],
                weights=arrays["weights"],
                decay=float(header["decay"]),
                window=int(header["window"]),
                kind=header["kind"],
                fit=header["fit"],
                source=Source.decode(header["source"]) if "source" in header else None,
            )


_AGAIN = "build it anew with 'atspeed neighbours build'"


def best(items: IntArray, scores: DoubleArray, count: int) -> tuple[IntArray, DoubleArray]:
    """The `count` items of the highest scores and these, best first; equal scores keep their order."""
    if 0 < count < len(items):
        kept = scores >= np.partition(scores, len(scores) - count)[len(scores) - count]
        items, scores = items[kept], scores[kept]
    order = np.argsort(-scores, kind="stable")[:count]
    return items[order], scores[order]
