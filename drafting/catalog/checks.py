"""Proof that a catalog which was read from a file is a catalog: everything that indexes something is in range, and its parts agree.

Invariant: a catalog that passes can be served without an index out of bounds, and every item is found by its own name and below its own
identifier. Reason: an artefact is mapped and not parsed, so nothing else would notice what is wrong with it until a request meets it.
"""

import json

import numpy as np

from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.catalog import MAX_CODES, MAX_LENGTH, Catalog
from drafting.catalog.text_column import ItemIndex, TextColumn
from drafting.trie.checks import check_trie, within

_ROWS_AT_ONCE = 1 << 16
_CODE_TYPES = (np.dtype(np.uint16), np.dtype(np.uint32))


def check_catalog(catalog: Catalog) -> None:
    """Check the arrays of a catalog, in time proportional to its items.

    Raises:
        ValueError: they are not those of a catalog; the message names the part that is wrong.
    """
    index, codes, trie = catalog.index, catalog.codes, catalog.trie
    _require(codes.ndim == 2 and 0 < codes.shape[1] <= MAX_LENGTH and len(codes) > 0, "the shape of its identifiers")
    _require(all(isinstance(name, str) for name in catalog.attributes), "the names of its attributes")
    items = len(catalog)
    columns = catalog.attributes.values()
    int32 = [index.rows, trie.items, trie.first_item, trie.leaf_of_item, *(column.codes for column in columns)]
    int64 = [trie.first_child, catalog.item_ids.offsets, *(column.values.offsets for column in columns)]
    _require(all(array.dtype == np.int32 and array.ndim == 1 for array in int32), "the types of its arrays")
    _require(all(array.dtype == np.int64 and array.ndim == 1 for array in int64), "the types of its arrays")
    _require(codes.dtype in _CODE_TYPES and trie.code.dtype == codes.dtype and index.hashes.dtype == np.uint64, "the types of its arrays")
    _require(len(set(catalog.tokens)) == len(catalog.tokens) and "" not in catalog.tokens, "its tokens")
    _require(within(codes, len(catalog.tokens)) and max(trie.max_children, default=0) <= MAX_CODES, "its identifiers")
    _check_texts(catalog.item_ids, items, "its item ids")
    _check_index(index)
    for name, column in catalog.attributes.items():
        _require(len(column.codes) == items and within(column.codes, len(column.values), -1), f"its attribute {name!r}")
        _check_texts(column.values, len(column.values), f"its attribute {name!r}")
    check_trie(trie, codes)


def check_contents(catalog: Catalog) -> None:
    """Check what is worth doing once, when a catalog comes in: that its version is the hash of its contents, and its values are JSON.

    Raises:
        ValueError: it is not so; the message names the part that is wrong.
    """
    for column in catalog.attributes.values():
        _check_values(column)
    _require(catalog.has_version_of_contents(), "its version, which is not the hash of its contents")


def _check_texts(texts: TextColumn, rows: int, part: str) -> None:
    offsets, data = texts.offsets, texts.data
    _require(data.dtype == np.uint8 and data.ndim == 1 and len(texts) == rows, part)
    _require(bool((offsets[1:] >= offsets[:-1]).all()) and offsets[0] == 0 and offsets[-1] + 8 == len(data), part)
    # Piece by piece, because decoding keeps all other threads waiting; and a text that begins between characters is found below.
    for first in range(0, rows, _ROWS_AT_ONCE):
        data[offsets[first] : offsets[min(first + _ROWS_AT_ONCE, rows)]].tobytes().decode("utf-8", "surrogatepass")
    starts = offsets[:-1][offsets[:-1] < offsets[-1]]
    _require(not ((data[starts] & 0xC0) == 0x80).any(), part)


def _check_index(index: ItemIndex) -> None:
    rows = len(index.names)
    found = np.zeros(rows, bool)
    _require(index.rows.shape == index.hashes.shape == (rows,) and within(index.rows, rows), "the lookup of its item ids")
    found[index.rows] = True
    _require(bool(found.all()) and np.array_equal(index.names.hashes()[index.rows], index.hashes), "the lookup of its item ids")
    _require(bool((index.hashes[1:] >= index.hashes[:-1]).all()) and index.duplicate() is None, "the lookup of its item ids")


def _check_values(column: AttributeColumn) -> None:
    for text in column.values:
        json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name}, which is not a number of JSON")


def _require(holds: bool, part: str) -> None:
    if not holds:
        raise ValueError(part)
