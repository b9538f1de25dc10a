"""The artefact of a catalog: a file that is memory-mapped instead of parsed, with names, identifiers, attributes and the finished trie.

Invariant: a file under its final name is complete (`drafting/mapped_arrays.py`). The header has a digest of all the rest, and a file may be
named by it (`digest_name`); one that does not have the digest of its name is not that file.
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.checks import check_catalog
from drafting.catalog.text_column import ItemIndex, TextColumn
from drafting.mapped_arrays import Arrays, digest_of, map_arrays, reading, save_arrays
from drafting.trie.arrays import TrieArrays

SUFFIX = ".catalog"
DIGEST_PREFIX = "sha256-"
_FORM = "atspeed-catalog-1"
_AGAIN = "build it anew with 'atspeed catalog convert'"


def digest_name(digest: str) -> str:
    """The name of a file that has this digest."""
    return f"{DIGEST_PREFIX}{digest}{SUFFIX}"


def digest_in(name: str) -> str | None:
    """The digest that a file is named by; None for one with another kind of name."""
    return name[len(DIGEST_PREFIX) : -len(SUFFIX)] if name.startswith(DIGEST_PREFIX) and name.endswith(SUFFIX) else None


def save_artefact(catalog: Catalog, path: Path) -> str:
    """Write a catalog, and return its digest; one that is `Catalog.ordered` for a model is loaded for that model without sorting again.

    Raises:
        OSError: the file cannot be written.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        **_text_arrays("items.names", catalog.item_ids),
        "items.hashes": catalog.index.hashes,
        "items.rows": catalog.index.rows,
        **_text_arrays("tokens", TextColumn.of(catalog.tokens)),
        "codes": catalog.codes,
        **{f"trie.{name}": np.asarray(values) for name, values in vars(catalog.trie).items()},
    }
    names = sorted(catalog.attributes)
    for number, name in enumerate(names):
        column = catalog.attributes[name]
        arrays |= {f"attributes.{number}.codes": column.codes, **_text_arrays(f"attributes.{number}.values", column.values)}
    header = {"form": _FORM, "version": catalog.version, "attributes": json.dumps(names)}
    header["digest"] = digest = digest_of(header, arrays)
    save_arrays(arrays, header, path)
    return digest


def load_artefact(path: Path, *, check: bool = False) -> Catalog:
    """Map a catalog that `save_artefact` wrote; the operating system reads its pages when they are used.

    Args:
        check: read all of it, and do not believe it: compare its digest, and all that indexes something with what it indexes.

    Raises:
        CatalogError: the file is missing, cut off or not an artefact, or does not pass the check.
    """
    catalog, header, arrays = _load(path)
    if not check:
        return catalog
    _check_digest(path, header, arrays)
    try:
        check_catalog(catalog)
    except ValueError as error:
        raise CatalogError(f"{path} is no catalog that can be served, for {error} can't be right: build it anew.") from error
    return catalog


def check_digest(path: Path, digest: str) -> None:
    """Read a whole artefact, and compare its contents with a digest.

    Raises:
        CatalogError: the file is missing, cut off or not an artefact, or has another digest.
    """
    with reading(path, "The catalog", "catalog artefact", _AGAIN, CatalogError):
        header, arrays = map_arrays(path)
        if header.get("digest") != digest:
            raise CatalogError(f"{path} is another file than that of digest {digest}.")
        _check_digest(path, header, arrays)


def _check_digest(path: Path, header: dict[str, str], arrays: Arrays) -> None:
    rest = {name: text for name, text in header.items() if name != "digest"}
    if "digest" in header and header["digest"] != digest_of(rest, arrays):
        raise CatalogError(f"{path} is damaged: its contents have another digest than it says. Build it anew, or bring it again.")


def _load(path: Path) -> tuple[Catalog, dict[str, str], Arrays]:
    with reading(path, "The catalog", "catalog artefact", _AGAIN, CatalogError):
        header, arrays = map_arrays(path)
        if header.get("form") != _FORM:
            raise CatalogError(f"{path} is no catalog artefact of this version of atspeed: {_AGAIN}.")
        if path.name.startswith(DIGEST_PREFIX) and path.name != digest_name(header["digest"]):
            raise CatalogError(f"{path} is another file than its name says: bring the catalog again.")
        names = _text("items.names", arrays)
        attributes = {
            name: AttributeColumn(arrays[f"attributes.{number}.codes"], _text(f"attributes.{number}.values", arrays))
            for number, name in enumerate(json.loads(header["attributes"]))
        }
        trie: dict[str, Any] = {field.name: arrays[f"trie.{field.name}"] for field in fields(TrieArrays)}
        trie |= {name: tuple(trie[name].astype(np.int64, casting="safe").ravel().tolist()) for name in ("level_starts", "max_children")}
        catalog = Catalog(
            index=ItemIndex(names, arrays["items.hashes"], arrays["items.rows"]),
            tokens=tuple(_text("tokens", arrays)),
            codes=arrays["codes"],
            attributes=attributes,
            trie=TrieArrays(**trie),
            version=header["version"],
        )
        return catalog, header, arrays


def _text_arrays(name: str, column: TextColumn) -> dict[str, npt.NDArray[Any]]:
    return {f"{name}.offsets": column.offsets, f"{name}.data": column.data}


def _text(name: str, arrays: Arrays) -> TextColumn:
    return TextColumn(arrays[f"{name}.offsets"], arrays[f"{name}.data"])
