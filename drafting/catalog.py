"""The catalog: which items exist and which identifier (a fixed-length sequence of tokens) names each of them.

Invariant: a `Catalog` never changes after it is made, and its `version` is a hash of its contents. Two processes that loaded the same
items therefore agree on every item's index, which is what lets them exchange plain integers instead of names; and an answer that names
a version can be checked against that version later.

An identifier may stand for several items (a quantiser can give two items the same codes); an item has exactly one identifier.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drafting.errors import SetupError


class CatalogError(SetupError):
    """A catalog that cannot be used; the message is a sentence that names the item and the reason."""


@dataclass(frozen=True)
class Catalog:
    """Items and their identifiers, in a fixed order; the position of an item in that order is its *index*.

    Attributes:
        item_ids: the items' names, unique, one per item.
        tokens: the distinct tokens that identifiers are made of.
        codes: `[items, length]` int32, the identifier of each item as positions in `tokens`.
        titles: a title (or None) per item.
    """

    item_ids: tuple[str, ...]
    tokens: tuple[str, ...]
    codes: npt.NDArray[np.int32]
    titles: tuple[str | None, ...]

    def __post_init__(self) -> None:
        if not self.item_ids:
            raise CatalogError("The catalog is empty: it needs at least one item.")
        if self.codes.ndim != 2 or not len(self.codes) == len(self.titles) == len(self.item_ids):
            raise CatalogError(
                f"{len(self.item_ids)} items need one identifier and one title each, got {len(self.codes)} and {len(self.titles)}."
            )
        if len(self._index_by_id) != len(self.item_ids):
            duplicate = next(item for index, item in enumerate(self.item_ids) if self._index_by_id[item] != index)
            raise CatalogError(f"Item {duplicate!r} appears twice in the catalog: item ids must be unique.")

    @classmethod
    def from_identifiers(
        cls, identifiers: Mapping[str, Sequence[str]] | Iterable[tuple[str, Sequence[str]]], titles: Mapping[str, str] | None = None
    ) -> "Catalog":
        """Builds a catalog from pairs of item id and identifier tokens.

        Raises:
            CatalogError: no item, a duplicate item id, an empty identifier, or identifiers of different lengths.
        """
        pairs = list(identifiers.items() if isinstance(identifiers, Mapping) else identifiers)
        if not pairs:
            raise CatalogError("The catalog is empty: it needs at least one item.")
        first_item, first_identifier = pairs[0]
        code_of: dict[str, int] = {}
        codes = np.empty((len(pairs), len(first_identifier)), np.int32)
        for row, (item, identifier) in enumerate(pairs):
            if not identifier:
                raise CatalogError(f"Item {item!r} has an empty identifier: it needs at least one token.")
            if len(identifier) != len(first_identifier):
                raise CatalogError(
                    f"The identifier of item {item!r} has {len(identifier)} tokens, but that of item {first_item!r} has "
                    f"{len(first_identifier)}: all identifiers of a catalog must have the same length."
                )
            codes[row] = [code_of.setdefault(token, len(code_of)) for token in identifier]
        return cls(
            item_ids=tuple(item for item, _ in pairs),
            tokens=tuple(code_of),
            codes=codes,
            titles=tuple((titles or {}).get(item) for item, _ in pairs),
        )

    @classmethod
    def load(cls, path: Path) -> "Catalog":
        """Reads LC-Rec's index JSON (`{"item": ["<a_1>", …]}`) from a `.json` file, anything else as JSONL of
        `{"item_id": "…", "identifier": ["…", …], "title": "…"}`, where the title may be missing.

        Raises:
            CatalogError: the file is missing or malformed, or its contents are no catalog.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CatalogError(f"The catalog {path} cannot be read: {error.strerror}.") from error
        if path.suffix == ".json":
            return cls.from_identifiers(_decode_index(data, path))
        lines = list(_decode_lines(data, path))
        titles = {line["item_id"]: line["title"] for line in lines if line.get("title") is not None}
        return cls.from_identifiers([(line["item_id"], line["identifier"]) for line in lines], titles)

    def save(self, path: Path) -> None:
        """Writes the catalog as JSONL, the form that `load` reads back to an equal catalog."""
        with path.open("w", encoding="utf-8") as file:
            for index, (item, title) in enumerate(zip(self.item_ids, self.titles, strict=True)):
                line: dict[str, Any] = {"item_id": item, "identifier": list(self.identifier(index))}
                file.write(json.dumps(line if title is None else line | {"title": title}, ensure_ascii=False) + "\n")

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def identifier_length(self) -> int:
        """Tokens per identifier: the depth of the catalog's trie."""
        return int(self.codes.shape[1])

    @cached_property
    def version(self) -> str:
        """Twelve hexadecimal digits that change whenever an item, an identifier or a title does."""
        digest = hashlib.sha256()
        for part in (self.item_ids, self.tokens, self.titles):
            digest.update(json.dumps(part).encode())
        digest.update(np.ascontiguousarray(self.codes).tobytes())
        return digest.hexdigest()[:12]

    @cached_property
    def _index_by_id(self) -> dict[str, int]:
        return {item: index for index, item in enumerate(self.item_ids)}

    def index_of(self, item_id: str) -> int | None:
        """The index of an item, or None if the catalog has no such item."""
        return self._index_by_id.get(item_id)

    def identifier(self, index: int) -> tuple[str, ...]:
        """The identifier tokens of the item at `index`."""
        return tuple(self.tokens[code] for code in self.codes[index])

    def token_ids(self, vocabulary: Mapping[str, int]) -> npt.NDArray[np.int64]:
        """The identifiers as a model's token ids, `[items, length]`.

        Raises:
            CatalogError: a token of the catalog is not in `vocabulary`; the message names the first item that needs it.
        """
        ids = np.array([vocabulary.get(token, -1) for token in self.tokens], np.int64)
        missing = np.flatnonzero(ids < 0)
        if missing.size:
            row = int(np.argmax((self.codes == missing[0]).any(axis=1)))
            raise CatalogError(
                f"The model's tokenizer has no token {self.tokens[missing[0]]!r}, which the identifier of item {self.item_ids[row]!r} "
                f"needs ({missing.size} of the catalog's {len(self.tokens)} tokens are missing): catalog and model do not belong together."
            )
        return ids[self.codes]


def _decode_index(data: bytes, path: Path) -> list[tuple[str, list[str]]]:
    try:
        # As pairs, because a plain dictionary would keep the last of two equal keys and say nothing.
        pairs = json.loads(data, object_pairs_hook=list)
    except ValueError as error:
        raise CatalogError(f"The catalog {path} is not JSON: {error}.") from error
    if not data.lstrip().startswith(b"{") or not all(_is_identifier(identifier) for _, identifier in pairs):
        raise CatalogError(f"The catalog {path} is not an index of the form {{item: [token, …]}}.")
    return [(item, identifier) for item, identifier in pairs]


def _decode_lines(data: bytes, path: Path) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(data.splitlines(), start=1):
        if not text.strip():
            continue
        where = f"Line {number} of the catalog {path}"
        try:
            line = json.loads(text)
        except ValueError as error:
            raise CatalogError(f"{where} is not JSON: {error}.") from error
        if not isinstance(line, dict) or not isinstance(line.get("item_id"), str) or not _is_identifier(line.get("identifier")):
            raise CatalogError(f'{where} is not an item of the form {{"item_id": "…", "identifier": ["…", …]}}.')
        if not isinstance(line.get("title"), str | None):
            raise CatalogError(f"{where} has a title that is not text.")
        yield line


def _is_identifier(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(token, str) for token in value)
