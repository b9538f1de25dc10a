"""The catalog as a file that is mapped instead of read: names, identifiers, attributes and the finished trie, ready to be searched.

Invariant: a file under its final name is whole. It is written beside its place and moved there, so whoever maps it never sees half of one,
and a file that replaces it leaves the mapping of a running server as it was. The form is safetensors: a header in JSON, then raw arrays,
which other tools can read.
"""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.item_index import ItemIndex
from drafting.catalog.text_column import TextColumn
from drafting.trie.arrays import TrieArrays

SUFFIX = ".catalog"
_FORM = "atspeed-catalog-1"
_HEADER_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 64
_NAMES = {"uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "int32": "I32", "int64": "I64"}
_TYPES = {name: np.dtype(kind).newbyteorder("<") for kind, name in _NAMES.items()}

Arrays = Mapping[str, npt.NDArray[Any]]


def save_artefact(catalog: Catalog, path: Path) -> None:
    """Write a catalog, best `Catalog.ordered` by the model that it is for, whose trie then needs no second sort."""
    trie = catalog.trie
    arrays: dict[str, npt.NDArray[Any]] = {
        **_text_arrays("items.names", catalog.item_ids),
        "items.hashes": catalog.index.hashes,
        "items.rows": catalog.index.rows,
        **_text_arrays("tokens", TextColumn.of(catalog.tokens)),
        "codes": catalog.codes,
        "trie.code": trie.code,
        "trie.first_child": trie.first_child,
        "trie.level_starts": np.array(trie.level_starts, np.int64),
        "trie.max_children": np.array(trie.max_children, np.int64),
        "trie.items": trie.items,
        "trie.first_item": trie.first_item,
        "trie.leaf_of_item": trie.leaf_of_item,
    }
    names = sorted(catalog.attributes)
    for number, name in enumerate(names):
        column = catalog.attributes[name]
        arrays |= {f"attributes.{number}.codes": column.codes, **_text_arrays(f"attributes.{number}.values", column.values)}
    header = {"form": _FORM, "version": catalog.version, "attributes": json.dumps(names)}
    building = path.with_name(path.name + ".part")
    try:
        _write(building, header, arrays)
        building.replace(path)
    finally:
        building.unlink(missing_ok=True)


def load_artefact(path: Path) -> Catalog:
    """Map a catalog that `save_artefact` wrote; its pages are read as they are used.

    Raises:
        CatalogError: the file is missing, cut off or something else.
    """
    try:
        header, arrays = _map(path)
        if header.get("form") != _FORM:
            raise CatalogError(f"{path} is no catalog artefact of this version of atspeed: build it anew with 'atspeed catalog convert'.")
        names = _text("items.names", arrays)
        attributes = {
            name: AttributeColumn(arrays[f"attributes.{number}.codes"], _text(f"attributes.{number}.values", arrays))
            for number, name in enumerate(json.loads(header["attributes"]))
        }
        trie = TrieArrays(
            code=arrays["trie.code"],
            first_child=arrays["trie.first_child"],
            level_starts=tuple(arrays["trie.level_starts"].tolist()),
            max_children=tuple(arrays["trie.max_children"].tolist()),
            items=arrays["trie.items"],
            first_item=arrays["trie.first_item"],
            leaf_of_item=arrays["trie.leaf_of_item"],
        )
        return Catalog(
            index=ItemIndex(names, arrays["items.hashes"], arrays["items.rows"]),
            tokens=tuple(_text("tokens", arrays)),
            codes=arrays["codes"],
            attributes=attributes,
            trie=trie,
            version=header["version"],
        )
    except OSError as error:
        raise CatalogError(f"The catalog {path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise CatalogError(f"{path} is no catalog artefact, or is cut off: build it anew with 'atspeed catalog convert'.") from error


def _text_arrays(name: str, column: TextColumn) -> dict[str, npt.NDArray[Any]]:
    return {f"{name}.offsets": column.offsets, f"{name}.data": column.data}


def _text(name: str, arrays: Arrays) -> TextColumn:
    return TextColumn(arrays[f"{name}.offsets"], arrays[f"{name}.data"])


def _write(path: Path, metadata: dict[str, str], arrays: Arrays) -> None:
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    # Wide numbers first, so that each array begins at a multiple of its own width.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    for name in names:
        array = arrays[name]
        header[name] = {"dtype": _NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(_HEADER_LENGTH.size + len(text)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(_HEADER_LENGTH.pack(len(text)) + text)
        for name in names:
            np.ascontiguousarray(arrays[name]).tofile(file)
        file.flush()
        os.fsync(file.fileno())


def _map(path: Path) -> tuple[dict[str, str], Arrays]:
    # Copy on write: PyTorch warns about memory that it could not write to, and nobody writes.
    data = np.memmap(path, np.uint8, mode="c")
    (length,) = _HEADER_LENGTH.unpack(data[: _HEADER_LENGTH.size].tobytes())
    start = _HEADER_LENGTH.size + length
    header = json.loads(data[_HEADER_LENGTH.size : start].tobytes())
    metadata = header.pop("__metadata__", {})
    plain = data.view(np.ndarray)
    arrays = {
        name: plain[start + first : start + last].view(_TYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        for first, last in [entry["data_offsets"]]
    }
    return metadata, arrays
