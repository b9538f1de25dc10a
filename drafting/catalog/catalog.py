"""The catalog of generative retrieval: the items, and for each its identifier (semantic id), a fixed-length sequence of tokens.

Invariant: a `Catalog` is immutable, and its `version` is a hash of its contents. Two processes that loaded the same items therefore agree
on the index of every item and can exchange integers instead of names; and an answer can be checked against the version that it names.

Every item has exactly one identifier, and items may share one (a quantiser can give two items the same codes). All that grows with the
number of items is an array, which may lie in a memory-mapped file.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drafting.array_types import IntArray
from drafting.catalog.attributes import TITLE, AttributeColumn
from drafting.catalog.item_values import Cap
from drafting.catalog.text_column import ItemIndex, TextColumn
from drafting.errors import SetupError
from drafting.trie.arrays import TrieArrays

Codes = npt.NDArray[np.unsignedinteger]

MAX_LENGTH = 8
MAX_CODES = 65_536
_ROWS_AT_ONCE = 1 << 18


class CatalogError(SetupError):
    """A catalog cannot be used; the message is a sentence that names the item and the reason."""


@dataclass(frozen=True, eq=False)
class Catalog:
    """Items and their identifiers in a fixed order; the *index* of an item is its position in this order.

    Attributes:
        index: unique names (item ids) of the items, with their lookup.
        tokens: distinct tokens of the identifiers; a *code* is a position in `tokens`.
        codes: `[items, length]` uint16 or uint32, the identifier of each item.
        attributes: attribute columns by name; answers always include `title`.
        trie: trie of `codes`.
        version: hash of the items, identifiers and attributes, twelve hexadecimal digits; the order of `tokens` does not matter.
    """

    index: ItemIndex
    tokens: tuple[str, ...]
    codes: Codes
    attributes: Mapping[str, AttributeColumn]
    trie: TrieArrays
    version: str

    @classmethod
    def of(
        cls, item_ids: TextColumn, tokens: Sequence[str], codes: npt.NDArray[np.integer], attributes: Mapping[str, AttributeColumn]
    ) -> "Catalog":
        """Build a catalog from its columns.

        Args:
            codes: `[items, length]`, positions in `tokens`.

        Raises:
            CatalogError: there is no item, an item id occurs twice, an identifier or one of its levels has too many tokens, or the columns
                have different lengths.
        """
        if not item_ids:
            raise CatalogError("The catalog is empty: it needs at least one item.")
        if codes.ndim != 2 or any(len(column) != len(item_ids) for column in (codes, *(each.codes for each in attributes.values()))):
            raise CatalogError(f"{len(item_ids)} items need one identifier and one value of each attribute each.")
        if codes.shape[1] > MAX_LENGTH:
            raise CatalogError(f"Identifiers have at most {MAX_LENGTH} tokens, got {codes.shape[1]}.")
        index = ItemIndex.of(item_ids)
        if (duplicate := index.duplicate()) is not None:
            raise CatalogError(f"Item {item_ids[duplicate]!r} appears twice in the catalog: item ids must be unique.")
        narrow: Codes = codes.astype(np.uint16) if len(tokens) <= 1 << 16 else codes.astype(np.uint32)
        trie = TrieArrays.from_codes(narrow)
        if max(trie.max_children) > MAX_CODES:
            raise CatalogError(f"A prefix is continued by {max(trie.max_children):,} different tokens; at most {MAX_CODES:,} are possible.")
        return cls(index, tuple(tokens), narrow, dict(attributes), trie, _version(item_ids, *_by_appearance(tokens, narrow), attributes))

    def save(self, path: Path) -> None:
        """Write the catalog as JSONL; `load_catalog` reads it back with the same version."""
        with path.open("w", encoding="utf-8") as file:
            for item, name in enumerate(self.item_ids):
                line: dict[str, Any] = {"item_id": name, "identifier": list(self.identifier(item))}
                known = self.known_attributes(item)
                title = known.pop(TITLE, None)
                line |= {} if title is None else {TITLE: title}
                file.write(json.dumps(line | ({"attributes": known} if known else {}), ensure_ascii=False) + "\n")

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def item_ids(self) -> TextColumn:
        """Names of the items."""
        return self.index.names

    @property
    def identifier_length(self) -> int:
        """Number of tokens per identifier, the depth of the trie."""
        return int(self.codes.shape[1])

    @property
    def identifiers(self) -> int:
        """Number of distinct identifiers; smaller than the number of items if some are shared."""
        return self.trie.level_size(self.trie.depth)

    def index_of(self, item_id: str) -> int | None:
        """The index of an item, or None if the catalog does not have it; for many items use `indices_of`."""
        found = int(self.index.find([item_id])[0])
        return None if found < 0 else found

    def indices_of(self, item_ids: Sequence[str]) -> IntArray:
        """The index of each item, `[items]` int64; -1 for items that the catalog does not have."""
        return self.index.find(item_ids)

    def identifier(self, index: int) -> tuple[str, ...]:
        """The tokens of the identifier of the item at `index`."""
        return tuple(self.tokens[code] for code in self.codes[index].tolist())

    def identifiers_of(self, indices: IntArray) -> list[list[str]]:
        """The tokens of the `identifier` of each of many items."""
        identifiers: list[list[str]] = self._token_array[self.codes[indices]].tolist()
        return identifiers

    @cached_property
    def _token_array(self) -> npt.NDArray[np.object_]:
        return np.array(self.tokens, object)

    def titles_of(self, indices: IntArray) -> list[str | None]:
        """The `title` of each of many items."""
        column = self.attributes.get(TITLE)
        values = [None] * len(indices) if column is None else column.values_of(indices)
        return [value if isinstance(value, str) else None for value in values]

    def title(self, index: int) -> str | None:
        """The title of the item at `index`, or None."""
        column = self.attributes.get(TITLE)
        title = None if column is None else column.value(index)
        return title if isinstance(title, str) else None

    @property
    def titled_items(self) -> int:
        """Number of items with a title."""
        column = self.attributes.get(TITLE)
        return 0 if column is None else int((column.codes >= 0).sum())

    def known_attributes(self, index: int) -> dict[str, Any]:
        """The attributes of the item at `index`, by name; without those that are missing."""
        values = {name: column.value(index) for name, column in self.attributes.items()}
        return {name: value for name, value in values.items() if value is not None}

    def caps(self, at_most: Mapping[str, int]) -> tuple[Cap, ...]:
        """Caps of lists, by attribute.

        Raises:
            ValueError: the catalog has no such attribute, or a cap is not positive; the message is a sentence.
        """
        if unknown := next((name for name in at_most if name not in self.attributes), None):
            raise ValueError(f"The catalog has no attribute {unknown!r}, by which a list could be diverse.")
        return tuple(Cap(self.attributes[name].item_values, most) for name, most in at_most.items())

    def vocabulary_ids(self, vocabulary: Mapping[str, int]) -> IntArray:
        """The id of each token of the catalog in a model's vocabulary, `[tokens]` int64.

        Raises:
            CatalogError: a token is not in `vocabulary`; the message names the first item that needs it.
        """
        ids = np.array([vocabulary.get(token, -1) for token in self.tokens], np.int64)
        missing = np.flatnonzero(ids < 0)
        if missing.size:
            row = int(np.argmax((self.codes == missing[0]).any(axis=1)))
            reason = "catalog and model do not belong together"
            if missing.size == len(self.tokens):
                reason += "; if the codes were numbers, convert them to the model's own tokens (`atspeed catalog convert --tokens`)"
            raise CatalogError(
                f"The model's tokenizer has no token {self.tokens[missing[0]]!r}, which the identifier of item {self.item_ids[row]!r} "
                f"needs ({missing.size} of the catalog's {len(self.tokens)} tokens are missing): {reason}."
            )
        return ids

    def token_ids(self, vocabulary: Mapping[str, int]) -> IntArray:
        """The identifiers as token ids of a model, `[items, length]`.

        Raises:
            CatalogError: as `vocabulary_ids`.
        """
        return self.vocabulary_ids(vocabulary)[self.codes]

    def has_version_of_contents(self) -> bool:
        """True if `version` is the hash of the contents; it takes as long as to hash them."""
        return self.version == _version(self.item_ids, *_by_appearance(self.tokens, self.codes), self.attributes)

    def ordered(self, token_ids: IntArray) -> "Catalog":
        """The same catalog with its tokens in the order of `token_ids` `[tokens]`, and its trie in the order of a model's token ids."""
        if (np.diff(token_ids) > 0).all():
            return self
        order = np.argsort(token_ids, kind="stable")
        number = np.empty(len(order), self.codes.dtype)
        number[order] = np.arange(len(order))
        codes = number[self.codes]
        return replace(self, tokens=tuple(self.tokens[code] for code in order.tolist()), codes=codes, trie=TrieArrays.from_codes(codes))


def _by_appearance(tokens: Sequence[str], codes: Codes) -> tuple[Sequence[str], Codes]:
    """Tokens and codes with the tokens in the order in which identifiers first name them; tokens that none names come last."""
    # The last write to a place stays, so written from the end on, what stays is the first appearance.
    first = np.full(len(tokens), codes.size, np.int64)
    for start in range(0, len(codes), _ROWS_AT_ONCE)[::-1]:
        named = codes[start : start + _ROWS_AT_ONCE].ravel()[::-1]
        first[named] = start * codes.shape[1] + np.arange(len(named))[::-1]
    if (first[1:] >= first[:-1]).all():
        return tokens, codes
    order = np.argsort(first, kind="stable")
    number = np.empty(len(order), codes.dtype)
    number[order] = np.arange(len(order))
    return [tokens[code] for code in order.tolist()], number[codes]


def _version(item_ids: TextColumn, tokens: Sequence[str], codes: npt.NDArray[np.integer], attributes: Mapping[str, AttributeColumn]) -> str:
    """The hash of a catalog's contents, computed in pieces so that no column is copied whole."""
    digest = hashlib.sha256()
    starts = range(0, len(item_ids), _ROWS_AT_ONCE)
    titles = attributes.get(TITLE)

    def add(pieces: Iterable[Sequence[str | None]]) -> None:
        for number, piece in enumerate(pieces):
            digest.update((("[" if number == 0 else ", ") + json.dumps(piece)[1:-1]).encode())
        digest.update(b"]")

    add(item_ids[start : start + _ROWS_AT_ONCE] for start in starts)
    add([tokens])
    if titles is None:
        add([None] * len(codes[start : start + _ROWS_AT_ONCE]) for start in starts)
    else:
        add([titles.value(item) for item in range(start, min(start + _ROWS_AT_ONCE, len(codes)))] for start in starts)
    for start in starts:
        digest.update(codes[start : start + _ROWS_AT_ONCE].astype(np.int32).tobytes())
    for name in sorted(attributes.keys() - {TITLE}):
        digest.update(json.dumps(name).encode())
        digest.update(attributes[name].codes.tobytes())
        digest.update(attributes[name].values.data.tobytes())
    return digest.hexdigest()[:12]
