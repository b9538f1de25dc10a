"""From ratings to a catalog: interactions, film embeddings, identifiers.

Invariant: only the training part of the ratings goes into the embeddings, so an identifier tells nothing about the films that the target
is judged by.
"""

from collections.abc import Callable

import numpy as np

from drafting.alignment.data.interactions import Interactions, by_user
from drafting.array_types import DoubleArray
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.catalog.codebooks import Codebooks, residual_kmeans
from server.demo.movielens import MovieLens


def interactions_of(movielens: MovieLens) -> Interactions:
    """Every rating as an interaction, independent of its value: the demo predicts what users watch."""
    row_of: dict[str, int] = {}
    rows = np.array([row_of.setdefault(user, len(row_of)) for user in movielens.user_ids], np.int64)
    return by_user(tuple(row_of), rows, movielens.rated, movielens.timestamps)


def film_embeddings(movielens: MovieLens, train: Interactions, dims: int, genre_weight: float) -> DoubleArray:
    """`[films, dims + genres]`: which films are watched by the same users, and of which genres they are.

    The first part is the cosine of the films' audiences, reduced by a truncated SVD; both parts have rows of unit length, the second one
    then scaled by `genre_weight`.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    films = len(movielens.film_ids)
    users = np.repeat(np.arange(len(train.users)), train.lengths)
    watched = csr_matrix((np.ones(len(train)), (users, train.items)), shape=(len(train.users), films))
    together = (watched.T @ watched).toarray()
    audience = np.sqrt(np.maximum(together.diagonal(), 1))
    np.fill_diagonal(together, 0)
    # A fixed first vector makes the iteration give the same result every time.
    vectors, values, _ = svds(together / np.outer(audience, audience), k=min(dims, films - 1), v0=np.ones(films))
    return np.concatenate(
        [_unit_rows(vectors * np.sqrt(values)), genre_weight * _unit_rows(movielens.film_genres.astype(np.float64))], axis=1
    )


def film_catalog(
    movielens: MovieLens, embeddings: DoubleArray, levels: int, codes_per_level: int, seed: int, on_level: Callable[[int], object]
) -> tuple[Catalog, Codebooks]:
    """The films with title, year and genres under identifiers of their own, and the codebooks that made those."""
    quantised = residual_kmeans(
        embeddings, levels=levels, codes_per_level=codes_per_level, seed=seed, resolve_collisions=True, on_level=on_level
    )
    pairs = zip(movielens.film_ids, quantised.identifiers(), strict=True)
    genres = [[movielens.genres[number] for number in np.flatnonzero(row)] or None for row in movielens.film_genres]
    attributes = {"title": movielens.titles, "year": movielens.years, "genres": genres}
    return catalog_of(pairs, attributes=attributes), quantised.codebooks


def _unit_rows(matrix: DoubleArray) -> DoubleArray:
    lengths: DoubleArray = np.linalg.norm(matrix, axis=1, keepdims=True)
    unit: DoubleArray = matrix / np.maximum(lengths, 1e-12)
    return unit
