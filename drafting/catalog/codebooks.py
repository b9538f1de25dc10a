"""Codebooks: semantic ids for catalogs without identifiers, computed from item embeddings by residual k-means.

Level 1 clusters the embeddings, level 2 the residuals of level 1, and so on; an item's identifier is its cluster at each level, coarse to
fine. Similar items therefore share the beginning of their identifiers, which a model that generates identifiers token by token can learn.

Invariant: an item's code at a level is the centroid nearest to its residual, by the same arithmetic in `residual_kmeans` and in
`Codebooks.encode`, so a new item gets the codes that it would have had; but with balanced levels an item may have another, because its
nearest was full, and another last one where collisions were resolved. The same embeddings and seed give the same codes: k-means runs on
one thread, because summing floats in another order may move an item between two centroids.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from drafting.array_types import FloatArray
from drafting.catalog.balance import balanced_kmeans
from drafting.catalog.nearest import distances, nearest
from drafting.catalog.pattern import TokenPattern
from drafting.errors import SetupError, check_file

Floats = FloatArray
Codes = npt.NDArray[np.int32]

# Levels of the token pattern are letters.
MAX_LEVELS = 26
# How many seeds scikit-learn takes, from 0 on.
_SEEDS = 2**32


class CodebookError(SetupError):
    """Embeddings, settings or codebooks cannot be used; the message is a sentence."""


@dataclass(frozen=True)
class Codebooks:
    """The centroids of every level.

    Attributes:
        levels: per level `[codes, dims]` float32; fewer codes than requested where fewer distinct residuals were left.
    """

    levels: tuple[Floats, ...]

    def encode(self, embeddings: npt.ArrayLike) -> Codes:
        """The nearest codes of embeddings `[items, dims]`: `[items, levels]` int32.

        Raises:
            CodebookError: the embeddings have another number of dimensions than the codebooks.
        """
        residual = _as_embeddings(embeddings).copy()
        if residual.shape[1] != self.levels[0].shape[1]:
            raise CodebookError(
                f"The embeddings have {residual.shape[1]} dimensions, but the codebooks were made from {self.levels[0].shape[1]}: "
                "use the embedding model that made the catalog."
            )
        codes = np.empty((len(residual), len(self.levels)), np.int32)
        for level, centroids in enumerate(self.levels):
            codes[:, level] = nearest(residual, centroids)
            residual -= centroids[codes[:, level]]
        return codes

    def nearest_first(self, level: int, residual: Floats) -> npt.NDArray[np.intp]:
        """All codes of a level, nearest to a residual `[dims]` first: `[codes]`; levels count from 0."""
        return np.argsort(distances(residual[None], self.levels[level])[0], kind="stable")

    def save(self, path: Path) -> None:
        """Write the centroids as safetensors with the names `level_1`, `level_2`, …"""
        from safetensors.numpy import save

        path.write_bytes(save({f"level_{number}": centroids for number, centroids in enumerate(self.levels, start=1)}))

    @classmethod
    def load(cls, path: Path) -> "Codebooks":
        """Read what `save` wrote.

        Raises:
            CodebookError: the file is missing or does not contain codebooks.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        check_file(path, "The codebooks", CodebookError)
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CodebookError(f"The codebooks {path} cannot be read: {error}.") from error
        names = [f"level_{number}" for number in range(1, len(tensors) + 1)]
        if not names or sorted(names) != sorted(tensors):
            raise CodebookError(f"{path} holds no codebooks: it should contain level_1, level_2, …, got {sorted(tensors)}.")
        return cls(tuple(tensors[name] for name in names))


@dataclass(frozen=True)
class Quantisation:
    """The result of residual k-means.

    Attributes:
        codebooks: centroids of every level.
        codes: `[items, levels]` int32, the code of each item at each level.
    """

    codebooks: Codebooks
    codes: Codes

    def numbered(self) -> "Quantisation":
        """The same with one code more in each identifier: the number of the item among those that share the others, from 0.

        Source: TIGER (arXiv 2305.05065).
        """
        owner = np.unique(self.codes, axis=0, return_inverse=True)[1].reshape(-1)
        order = np.argsort(owner, kind="stable")
        starts = np.flatnonzero(np.diff(owner[order], prepend=-1))
        number = np.empty_like(owner)
        number[order] = np.arange(len(owner)) - np.repeat(starts, np.diff(starts, append=len(owner)))
        return replace(self, codes=np.column_stack([self.codes, number]).astype(np.int32))

    def with_item_tokens(self) -> "Quantisation":
        """The same with one code more in each identifier, which no other item has: the number of its row.

        A model then learns an embedding and an output of each item's own, and the codes before it are a hierarchy to find the item by.
        """
        return replace(self, codes=np.column_stack([self.codes, np.arange(len(self.codes))]).astype(np.int32))

    def identifiers(self) -> list[tuple[str, ...]]:
        """The tokens of each item, such as `("<a_12>", "<b_3>", "<c_40>")`."""
        pattern = TokenPattern()
        return [tuple(pattern.tokens(row)) for row in self.codes.tolist()]

    @property
    def shared_identifiers(self) -> int:
        """Number of items whose identifier another item has as well."""
        _, counts = np.unique(self.codes, axis=0, return_counts=True)
        return int(counts[counts > 1].sum())


def residual_kmeans(
    embeddings: npt.ArrayLike,
    *,
    levels: int = 3,
    codes_per_level: int = 64,
    seed: int = 0,
    resolve_collisions: bool = False,
    balanced: bool = False,
    on_level: Callable[[int], object] | None = None,
) -> Quantisation:
    """Compute codebooks and codes from item embeddings.

    Args:
        embeddings: `[items, dims]`, finite.
        resolve_collisions: make identifiers unique: behind a prefix where items share one, all items claim codes of the last level anew,
            so that one which shared none may move as well; otherwise items may share an identifier.
        balanced: bound how many items a code of a level has, see `drafting.catalog.balance`; resolving collisions may undo
            it on the last.
        on_level: called with the number of each level when it is done.

    Raises:
        CodebookError: the embeddings or settings cannot be used, or more items share a prefix than the last level has codes.

    Source: residual quantisation with k-means as in RQ-KMeans of "OneRec" (arXiv 2502.18965); identifiers as in LC-Rec (arXiv 2311.09049).
    """
    residual = _as_embeddings(embeddings).copy()
    if not 1 <= levels <= MAX_LEVELS:
        raise CodebookError(f"Identifiers have 1 to {MAX_LEVELS} levels, got {levels}.")
    if codes_per_level < 1:
        raise CodebookError(f"A level needs at least one code, got {codes_per_level}.")
    books: list[Floats] = []
    codes = np.empty((len(residual), levels), np.int32)
    for level in range(levels):
        centroids = _kmeans(residual, codes_per_level, (seed + level) % _SEEDS)
        if balanced:
            centroids, codes[:, level] = balanced_kmeans(residual, centroids)
        else:
            codes[:, level] = nearest(residual, centroids)
        residual -= centroids[codes[:, level]]
        books.append(centroids)
        if on_level:
            on_level(level + 1)
    codebooks = Codebooks(tuple(books))
    return Quantisation(codebooks, _resolve(codebooks, codes, _as_embeddings(embeddings)) if resolve_collisions else codes)


def _as_embeddings(embeddings: npt.ArrayLike) -> Floats:
    matrix = np.asarray(embeddings)
    if matrix.ndim != 2 or not matrix.size or not np.issubdtype(matrix.dtype, np.number):
        raise CodebookError(f"Embeddings are a matrix of numbers [items, dims], got {matrix.dtype} of shape {matrix.shape}.")
    matrix = matrix.astype(np.float32, copy=False)
    if not np.isfinite(matrix).all():
        row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise CodebookError(f"Row {row} of the embeddings holds a value that is not finite.")
    return matrix


def _kmeans(points: Floats, clusters: int, seed: int) -> Floats:
    """Centroids `[at most clusters, dims]` of `points` `[items, dims]`."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    distinct = len(np.unique(points, axis=0))
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # Residuals that differ only by rounding count as distinct above but not in scikit-learn; the spare centroids do no harm.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(n_clusters=min(clusters, distinct), n_init=1, random_state=seed).fit(points)
    return np.ascontiguousarray(fitted.cluster_centers_, np.float32)


def _resolve(codebooks: Codebooks, codes: Codes, embeddings: Floats) -> Codes:
    """Make identifiers unique, prefix by prefix, and leave prefixes alone where they are: an item that is nearer to a code claims it first,
    whether the code was its own or not.

    Raises:
        CodebookError: more items share a prefix of all but the last level than the last level has codes.
    """
    codes = codes.copy()
    last = codebooks.levels[-1]
    prefix_of = (
        np.unique(codes[:, :-1], axis=0, return_inverse=True)[1].reshape(-1) if codes.shape[1] > 1 else np.zeros(len(codes), np.int64)
    )
    order = np.argsort(prefix_of, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(prefix_of[order])) + 1):
        if len(np.unique(codes[members, -1])) == len(members):
            continue
        if len(members) > len(last):
            prefix = Quantisation(codebooks, codes[members[:1]]).identifiers()[0][:-1]
            raise CodebookError(
                f"{len(members)} items share the prefix {''.join(prefix)!r}, but the last level has only {len(last)} codes to tell them "
                "apart: use more codes or levels, or keep shared identifiers."
            )
        residual = embeddings[members]
        for level, centroids in enumerate(codebooks.levels[:-1]):
            residual = residual - centroids[codes[members, level]]
        codes[members, -1] = _claim(distances(residual, last) + (residual * residual).sum(axis=1, keepdims=True))
    return codes


def _claim(away: Floats) -> npt.NDArray[np.int32]:
    """Distinct codes for the items of `[items, codes]` distances, `[items]`: greedily take the nearest pair of an item and a free code."""
    away = away.copy()
    claimed = np.empty(len(away), np.int32)
    for _ in range(len(away)):
        item, code = np.unravel_index(int(away.argmin()), away.shape)
        claimed[item] = code
        away[item, :] = np.inf
        away[:, code] = np.inf
    return claimed
