"""Residual k-means: what identifiers it makes, and what it refuses."""

import os
from pathlib import Path

import numpy as np
import pytest

from drafting.catalog.builder import catalog_of
from drafting.catalog.codebooks import CodebookError, Codebooks, residual_kmeans


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    """300 items in 12 clusters of different spread."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 8)) * 4
    return (centres[rng.integers(12, size=300)] + rng.normal(size=(300, 8))).astype(np.float32)


def test_reconstruction_error_falls_with_every_level(embeddings: np.ndarray) -> None:
    quantised = residual_kmeans(embeddings, levels=4, codes_per_level=16)
    errors = []
    for levels in range(1, 5):
        kept = zip(quantised.codebooks.levels[:levels], quantised.codes.T, strict=False)
        errors.append(float(((embeddings - sum(centroids[codes] for centroids, codes in kept)) ** 2).sum()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.25 * errors[0]


def test_same_seed_same_codes_other_seed_other_codes(embeddings: np.ndarray) -> None:
    first, again, other = (residual_kmeans(embeddings, levels=3, codes_per_level=16, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.codes, again.codes)
    for mine, theirs in zip(first.codebooks.levels, again.codebooks.levels, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert (first.codes != other.codes).any()


def test_the_largest_seed_has_seeds_behind_it_for_further_levels(embeddings: np.ndarray) -> None:
    last = residual_kmeans(embeddings, levels=2, codes_per_level=8, seed=2**32 - 1)
    rest = embeddings - last.codebooks.levels[0][last.codes[:, 0]]
    np.testing.assert_array_equal(residual_kmeans(rest, levels=1, codes_per_level=8, seed=0).codes[:, 0], last.codes[:, 1])


def test_a_code_is_the_nearest_centroid_of_the_residual(embeddings: np.ndarray) -> None:
    quantised = residual_kmeans(embeddings, levels=2, codes_per_level=8)
    first, second = quantised.codebooks.levels
    for item in range(0, 300, 37):
        nearest = np.linalg.norm(embeddings[item] - first, axis=1).argmin()
        rest = embeddings[item] - first[nearest]
        assert tuple(quantised.codes[item]) == (nearest, np.linalg.norm(rest - second, axis=1).argmin())


def test_an_item_encodes_later_as_it_did_when_the_catalog_was_made(embeddings: np.ndarray, tmp_path: Path) -> None:
    quantised = residual_kmeans(embeddings, levels=3, codes_per_level=16)
    quantised.codebooks.save(tmp_path / "codebooks.safetensors")
    loaded = Codebooks.load(tmp_path / "codebooks.safetensors")
    np.testing.assert_array_equal(loaded.encode(embeddings), quantised.codes)


def test_identifiers_name_level_and_code(embeddings: np.ndarray) -> None:
    quantised = residual_kmeans(embeddings, levels=3, codes_per_level=16)
    codes = quantised.codes[7]
    assert quantised.identifiers()[7] == (f"<a_{codes[0]}>", f"<b_{codes[1]}>", f"<c_{codes[2]}>")
    catalog = catalog_of([(str(n), identifier) for n, identifier in enumerate(quantised.identifiers())])
    assert catalog.identifier_length == 3


def test_collisions_are_kept_unless_resolved(embeddings: np.ndarray) -> None:
    twins = np.concatenate([embeddings, embeddings[:10]])
    kept = residual_kmeans(twins, levels=2, codes_per_level=64)
    np.testing.assert_array_equal(kept.codes[:10], kept.codes[300:])
    assert kept.shared_identifiers >= 20

    resolved = residual_kmeans(twins, levels=2, codes_per_level=64, resolve_collisions=True)
    assert resolved.shared_identifiers == 0
    np.testing.assert_array_equal(resolved.codes[:, 0], kept.codes[:, 0])
    _, prefix, holders = np.unique(kept.codes[:, 0], return_inverse=True, return_counts=True)
    distinct = np.bincount(np.unique(np.stack([prefix, kept.codes[:, 1]], axis=1), axis=0)[:, 0])
    alone = (holders == distinct)[prefix]
    assert alone.any(), "behind some prefix nobody shares an identifier, and there nothing may move"
    np.testing.assert_array_equal(resolved.codes[alone], kept.codes[alone])


def test_more_items_behind_a_prefix_than_codes_cannot_be_resolved() -> None:
    points = np.array([[0.0], [0.0], [5.0], [1.0]], np.float32)
    with pytest.raises(CodebookError, match="4 items share the prefix '', but the last level has only 3 codes"):
        residual_kmeans(points, levels=1, codes_per_level=3, resolve_collisions=True)


def test_fewer_distinct_residuals_than_codes_make_fewer_codes() -> None:
    quantised = residual_kmeans(np.array([[0.0], [0.0], [5.0]]), levels=2, codes_per_level=8)
    assert [len(level) for level in quantised.codebooks.levels] == [2, 1]
    assert quantised.codes[0].tolist() == quantised.codes[1].tolist() != quantised.codes[2].tolist()


def test_one_level_of_claims_by_hand() -> None:
    from drafting.catalog.codebooks import _claim

    distances = np.array([[0.0, 1.0, 25.0], [0.1, 0.9, 24.0], [25.0, 16.0, 0.0]], np.float32)
    # Item 0 is nearest to code 0 and takes it; item 1 wanted it too and takes the next nearest that is free.
    assert _claim(distances).tolist() == [0, 1, 2]
    # Here the next nearest is code 1, and item 2, which had it and shared it with nobody, is further from it and moves.
    distances = np.array([[0.0, 9.0, 25.0], [1.0, 4.0, 16.0], [25.0, 5.0, 6.0]], np.float32)
    assert _claim(distances).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("embeddings", "options", "sentence"),
    [
        (np.zeros((0, 4)), {}, r"matrix of numbers \[items, dims\]"),
        (np.zeros(4), {}, r"matrix of numbers \[items, dims\]"),
        (np.array([["a"]]), {}, "matrix of numbers"),
        (np.array([[0.0], [np.nan]]), {}, "Row 1 of the embeddings holds a value that is not finite"),
        (np.ones((3, 2)), {"levels": 0}, "1 to 26 levels, got 0"),
        (np.ones((3, 2)), {"levels": 27}, "1 to 26 levels, got 27"),
        (np.ones((3, 2)), {"codes_per_level": 0}, "at least one code, got 0"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(embeddings: np.ndarray, options: dict[str, int], sentence: str) -> None:
    with pytest.raises(CodebookError, match=sentence):
        residual_kmeans(embeddings, **options)


def test_embeddings_of_another_width_are_refused(embeddings: np.ndarray) -> None:
    codebooks = residual_kmeans(embeddings, levels=1, codes_per_level=4).codebooks
    with pytest.raises(CodebookError, match="5 dimensions, but the codebooks were made from 8"):
        codebooks.encode(np.ones((2, 5)))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "codebooks.safetensors")
    with pytest.raises(CodebookError, match="not a regular file"):
        Codebooks.load(tmp_path / "codebooks.safetensors")


def test_a_file_that_holds_no_codebooks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(CodebookError, match="cannot be read"):
        Codebooks.load(tmp_path / "broken.safetensors")
    with pytest.raises(CodebookError, match="cannot be read"):
        Codebooks.load(tmp_path / "absent.safetensors")
