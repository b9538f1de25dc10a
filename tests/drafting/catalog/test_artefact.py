"""The mapped catalog against the one that was written, and files that are something else."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from drafting.catalog.artefact import load_artefact, save_artefact
from drafting.catalog.builder import CatalogBuilder
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.loading import load_catalog
from drafting.trie.item_trie import ItemTrie


@pytest.fixture
def catalog() -> Catalog:
    builder = CatalogBuilder()
    rng = np.random.default_rng(0)
    identifiers = [[f"<{letter}_{code}>" for letter, code in zip("abc", row, strict=True)] for row in rng.integers(9, size=(300, 3))]
    attributes = {"title": [f"Title {i}" if i % 2 else None for i in range(300)], "tags": [["x", i % 3] for i in range(300)]}
    builder.add([f"item {i} é" for i in range(300)], identifiers, attributes)
    return builder.catalog()


def test_what_is_mapped_is_what_was_written(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "some.catalog"
    save_artefact(catalog, path)
    mapped = load_catalog(path)
    assert (mapped.version, mapped.tokens, len(mapped)) == (catalog.version, catalog.tokens, 300)
    assert list(mapped.item_ids) == list(catalog.item_ids)
    assert [mapped.known_attributes(i) for i in range(300)] == [catalog.known_attributes(i) for i in range(300)]
    assert mapped.indices_of(["item 7 é", "item 7"]).tolist() == [7, -1]
    np.testing.assert_array_equal(mapped.codes, catalog.codes)
    for name, value in vars(catalog.trie).items():
        np.testing.assert_array_equal(vars(mapped.trie)[name], value, name)
    assert set(load_file(path)) >= {"codes", "trie.first_child", "items.names.data"}


def test_a_catalog_in_a_models_order_is_the_same_catalog_with_that_models_trie(catalog: Catalog) -> None:
    ids = np.random.default_rng(1).permutation(len(catalog.tokens)) + 5
    vocabulary = dict(zip(catalog.tokens, ids.tolist(), strict=True))
    ordered = catalog.ordered(ids)
    assert ordered.version == catalog.version
    assert [ordered.identifier(i) for i in range(300)] == [catalog.identifier(i) for i in range(300)]
    theirs = ItemTrie.build(catalog.token_ids(vocabulary))
    ours = ItemTrie.of(ordered.trie, ordered.vocabulary_ids(vocabulary))
    np.testing.assert_array_equal(ours.token, theirs.token)
    np.testing.assert_array_equal(ours.first_child, theirs.first_child)
    np.testing.assert_array_equal(ours.items, theirs.items)
    assert ordered.ordered(ordered.vocabulary_ids(vocabulary)) is ordered


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_file_that_is_cut_off_is_refused(catalog: Catalog, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "some.catalog"
    save_artefact(catalog, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CatalogError, match="is no catalog artefact, or is cut off"):
        load_artefact(path)


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot be read: No such file"):
        load_catalog(tmp_path / "none.catalog")


def test_a_write_that_fails_leaves_the_old_file(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.catalog"
    save_artefact(catalog, path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_artefact(catalog, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["some.catalog"]
