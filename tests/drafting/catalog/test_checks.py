"""Artefacts that lie: every array, changed in every way that could lead somewhere else, is found out before anything is served from it."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from drafting.catalog.artefact import digest_name, load_artefact, save_artefact
from drafting.catalog.builder import CatalogBuilder
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.checks import check_catalog, check_contents
from drafting.catalog.loading import load_catalog
from tests.models import random_catalog

Arrays = dict[str, npt.NDArray[Any]]


@pytest.fixture
def catalog() -> Catalog:
    builder = CatalogBuilder()
    rng = np.random.default_rng(0)
    identifiers = [[f"<{letter}_{code}>" for letter, code in zip("abc", row, strict=True)] for row in rng.integers(7, size=(120, 3))]
    builder.add([f"item {i} é" for i in range(120)], identifiers, {"title": [f"Title {i}" if i % 2 else None for i in range(120)]})
    return builder.catalog()


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in sorted(file.keys())}, file.metadata()


@pytest.fixture
def change(catalog: Catalog, tmp_path: Path) -> Callable[..., Path]:
    """Writes the catalog with something changed, and without its digest, as somebody may who means harm."""

    def changed(array: str = "codes", how: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = lambda array: array, **header: str) -> Path:
        path = tmp_path / "some.catalog"
        save_artefact(catalog, path)
        arrays, metadata = read(path)
        arrays[array] = np.ascontiguousarray(how(arrays[array].copy()))
        del metadata["digest"]
        save_file(arrays, path, metadata | header)
        return path

    return changed


def put(row: int, value: Any) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    def how(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        array.reshape(-1)[row] = value
        return array

    return how


def swap(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array[[3, 40]] = array[[40, 3]]
    return array


LIES: list[tuple[str, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]]] = [
    ("trie.items", lambda items: items[::-1]),
    ("trie.items", swap),
    ("trie.items", put(5, 120)),
    ("trie.items", put(5, -1)),
    ("trie.items", lambda items: np.zeros_like(items)),
    ("trie.items", lambda items: items[:-1]),
    ("trie.items", lambda items: items.astype(np.int64)),
    ("trie.first_item", put(4, 10**6)),
    ("trie.first_item", put(4, -3)),
    ("trie.first_item", put(-1, 119)),
    ("trie.first_child", put(2, 10**9)),
    ("trie.first_child", put(2, -(2**63))),
    ("trie.first_child", put(0, 0)),
    ("trie.first_child", put(-1, 0)),
    ("trie.first_child", lambda offsets: offsets.astype(np.float64)),
    ("trie.leaf_of_item", swap),
    ("trie.leaf_of_item", put(0, 10**6)),
    ("trie.code", put(9, 60_000)),
    ("trie.code", lambda code: code[::-1]),
    ("trie.level_starts", put(1, 2)),
    ("trie.level_starts", put(-1, 10**12)),
    ("trie.level_starts", lambda starts: starts.astype(np.float64)),
    ("trie.max_children", put(0, 1)),
    ("trie.max_children", put(0, 10**6)),
    ("trie.max_children", lambda most: most[:0]),
    ("codes", put(0, 60_000)),
    ("codes", lambda codes: codes[::-1]),
    ("codes", lambda codes: codes.reshape(-1)),
    ("codes", lambda codes: codes.astype(np.int64)),
    ("items.rows", put(0, 10**6)),
    ("items.rows", swap),
    ("items.hashes", lambda hashes: hashes[::-1]),
    ("items.hashes", put(0, 1)),
    ("items.names.offsets", put(3, 10**6)),
    ("items.names.offsets", put(3, 0)),
    ("items.names.offsets", put(0, 1)),
    ("items.names.data", put(0, 0xFF)),
    ("items.names.data", put(0, ord("x"))),
    ("tokens.offsets", put(1, 0)),
    ("tokens.data", put(0, 0xFF)),
    ("attributes.0.codes", put(1, 10**6)),
    ("attributes.0.codes", put(1, -2)),
    ("attributes.0.codes", lambda codes: codes[:-1]),
    ("attributes.0.values.offsets", put(1, 10**6)),
]


@pytest.mark.parametrize(("array", "how"), LIES)
def test_a_file_that_lies_is_refused(change: Callable[..., Path], array: str, how: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
    with pytest.raises(CatalogError, match=r"can't be right: build it anew|is no catalog artefact"):
        load_catalog(change(array, how), check=True)


def test_what_is_true_passes_also_without_a_digest(change: Callable[..., Path], catalog: Catalog) -> None:
    mapped = load_catalog(change(), check=True)
    check_contents(mapped)
    assert mapped.version == catalog.version


@pytest.mark.parametrize("seed", range(5))
def test_every_catalog_passes_and_so_does_its_order_for_a_model(seed: int, tmp_path: Path) -> None:
    catalog = random_catalog(items=1 + 40 * seed, depth=1 + seed % 4, codes=1 + 3 * seed, seed=seed)
    ordered = catalog.ordered(np.random.default_rng(seed).permutation(len(catalog.tokens)))
    for number, each in enumerate((catalog, ordered)):
        save_artefact(each, tmp_path / f"{number}.catalog")
        check_contents(load_catalog(tmp_path / f"{number}.catalog", check=True))


@pytest.mark.parametrize("array", ["items.names.data", "trie.items", "codes", "attributes.0.values.data"])
def test_a_flipped_bit_is_found_by_the_digest(catalog: Catalog, tmp_path: Path, array: str) -> None:
    path = tmp_path / "some.catalog"
    save_artefact(catalog, path)
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    first, _ = json.loads(data[8 : 8 + length])[array]["data_offsets"]
    data[8 + length + first] ^= 1
    path.write_bytes(data)
    with pytest.raises(CatalogError, match="is damaged: its contents have another digest than it says"):
        load_catalog(path, check=True)


def test_a_file_that_is_named_by_a_digest_has_it(catalog: Catalog, tmp_path: Path) -> None:
    first, second = tmp_path / "first.catalog", tmp_path / "second.catalog"
    digests = save_artefact(catalog, first), save_artefact(random_catalog(), second)
    assert digests[0] == save_artefact(load_artefact(first), tmp_path / "again.catalog")
    named = first.rename(tmp_path / digest_name(digests[0]))
    assert load_artefact(named, check=True).version == catalog.version
    second.rename(named)
    with pytest.raises(CatalogError, match="is another file than its name says"):
        load_artefact(named)


def test_the_version_is_the_hash_of_the_contents(change: Callable[..., Path]) -> None:
    mapped = load_catalog(change(version="0123456789ab"), check=True)
    with pytest.raises(ValueError, match="its version, which is not the hash of its contents"):
        check_contents(mapped)


def test_values_are_json(catalog: Catalog, change: Callable[..., Path]) -> None:
    mapped = load_catalog(change("attributes.0.values.data", put(0, ord("x"))), check=True)
    check_catalog(mapped)
    with pytest.raises(ValueError, match="Expecting value"):
        check_contents(mapped)


def test_the_order_of_tokens_is_no_part_of_the_version() -> None:
    catalog = random_catalog(items=50)
    ordered = catalog.ordered(np.random.default_rng(3).permutation(len(catalog.tokens)))
    assert list(ordered.tokens) != list(catalog.tokens)
    again = Catalog.of(ordered.item_ids, ordered.tokens, ordered.codes, ordered.attributes)
    assert again.version == catalog.version
    assert ordered.has_version_of_contents()


@pytest.mark.parametrize("suffix", [".catalog", ".jsonl", ".json", ".parquet"])
def test_what_is_no_file_is_a_sentence_and_keeps_nobody_waiting(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(CatalogError, match="cannot be read: it is not a regular file"):
            load_catalog(tmp_path / f"{name}{suffix}", check=True)
