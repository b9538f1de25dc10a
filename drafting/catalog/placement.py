"""Adding items to a catalog: choose an identifier for each new item, and append the items.

Invariant: old items keep their index, identifier and attributes, and new items follow them, so all that is stored by index stays valid.
Either all items are added or none.

The identifier of an embedding is the nearest code of each level, among the codes that the catalog uses: the model was not trained to
generate other tokens. Items are added one after the other, in their order.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from drafting.array_types import FloatArray, IntArray
from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.codebooks import Codebooks
from drafting.catalog.freshness import ADDED_AT, day_of
from drafting.catalog.json_values import MAX_ATTRIBUTES, too_many
from drafting.catalog.pattern import TokenPattern
from drafting.catalog.text_column import TextColumn
from drafting.trie.arrays import TrieArrays

Identifier = tuple[int, ...]
Floats = FloatArray


class Collision(StrEnum):
    """The rule for a new item whose identifier another item already has.

    Attributes:
        NEAREST_FREE: use the nearest free code of the last level after the same prefix, or else after the next nearest prefix.
        SHARED: share the identifier; both items are listed together.
    """

    NEAREST_FREE = "nearest-free"
    SHARED = "shared"


class TakenError(CatalogError):
    """A name or an identifier already belongs to another item; the message is a sentence."""


class NewItem(msgspec.Struct, frozen=True):
    """An item to add.

    Attributes:
        embedding: `[dims]` numbers from the embedding model of the codebooks; None for an item with an identifier.
        identifier: tokens of the identifier; None for an item with an embedding.
        attributes: attributes by name, the title included.
    """

    item_id: str
    embedding: list[float] | None = None
    identifier: list[str] | None = None
    attributes: dict[str, Any] = {}


class PlacedItem(msgspec.Struct, frozen=True):
    """An added item and its identifier.

    Attributes:
        moved: True if a nearer identifier belonged to another item.
    """

    item_id: str
    identifier: tuple[str, ...]
    moved: bool


def add_items(
    catalog: Catalog, items: Sequence[NewItem], collision: Collision, codebooks: Codebooks | None, added_at: int
) -> tuple[Catalog, list[PlacedItem]]:
    """A new catalog with `items` appended, and their identifiers.

    Args:
        codebooks: codebooks that made the catalog's identifiers; None if there are none, then every item needs an identifier.
        added_at: attribute `added_at` of items without it, seconds since 1970.

    Raises:
        TakenError: the catalog already has an item of this name, or no identifier is free.
        CatalogError: an item cannot be added, or the codebooks do not belong to the catalog.
    """
    _check_names(catalog, items)
    known = [{ADDED_AT: added_at} | {name: value for name, value in item.attributes.items() if value is not None} for item in items]
    names = catalog.attributes.keys() | {name for attributes in known for name in attributes}
    if len(names) > max(MAX_ATTRIBUTES, len(catalog.attributes)):
        raise CatalogError(too_many(len(names)))
    for item, attributes in zip(items, known, strict=True):
        if day_of(attributes[ADDED_AT]) is None:
            raise CatalogError(f"{ADDED_AT} of item {item.item_id!r} is neither seconds since 1970 nor an ISO date or time.")
    code_of = {token: code for code, token in enumerate(catalog.tokens)}
    taken = _TakenIdentifiers(catalog.trie)
    quantiser = None if codebooks is None else _Quantiser(codebooks, code_of, catalog.identifier_length, taken)
    identifiers: list[Identifier] = []
    moved: list[bool] = []
    for item in items:
        wanted, given = _choose(item, catalog.identifier_length, code_of, taken, quantiser, collision)
        taken.add(given)
        identifiers.append(given)
        moved.append(given != wanted)
    grown = _append(catalog, items, identifiers, list(code_of), known)
    return grown, [PlacedItem(item.item_id, grown.identifier(len(catalog) + row), moved[row]) for row, item in enumerate(items)]


class _TakenIdentifiers:
    """The identifiers in use: those of the catalog's trie and those of the new items so far."""

    def __init__(self, trie: TrieArrays) -> None:
        self._trie = trie
        self._given: dict[Identifier, set[int]] = {}

    def add(self, identifier: Identifier) -> None:
        self._given.setdefault(identifier[:-1], set()).add(identifier[-1])

    def after(self, prefix: Identifier) -> IntArray:
        """The last codes of all identifiers with this prefix of all but the last code."""
        node = self._trie.find(prefix)
        in_trie = np.empty(0, np.int64) if node is None else self._trie.codes_below(node).astype(np.int64)
        return np.append(in_trie, np.array(list(self._given.get(prefix, ())), np.int64))

    def __contains__(self, identifier: Identifier) -> bool:
        return identifier[-1] in self.after(identifier[:-1])


class _Quantiser:
    """Finds identifiers of embeddings, in the codes of the catalog."""

    def __init__(self, codebooks: Codebooks, code_of: Mapping[str, int], length: int, taken: _TakenIdentifiers) -> None:
        if len(codebooks.levels) != length:
            raise CatalogError(
                f"The codebooks have {len(codebooks.levels)} levels, but identifiers of the catalog have {length} tokens: they do not "
                "belong together."
            )
        pattern = TokenPattern()
        self._codebooks = codebooks
        self._taken = taken
        # Per level, the catalog's code of each code of the codebooks; -1 where the catalog has none.
        self._codes = [
            np.array([code_of.get(pattern.token(level, code), -1) for code in range(len(centroids))], np.int64)
            for level, centroids in enumerate(codebooks.levels)
        ]
        for level, codes in enumerate(self._codes):
            if (codes < 0).all():
                raise CatalogError(
                    f"The catalog has no token such as {pattern.token(level, 0)}, which the codebooks give on level {level + 1}: they do "
                    "not belong together."
                )
        self._full: set[Identifier] = set()

    def residual(self, item: NewItem) -> Floats:
        """The embedding as `[dims]` float32."""
        with np.errstate(over="ignore"):
            embedding = np.array(item.embedding, np.float32)
        dims = self._codebooks.levels[0].shape[1]
        if embedding.shape != (dims,):
            raise CatalogError(f"The embedding of item {item.item_id!r} has {embedding.size} numbers, but the codebooks take {dims}.")
        if not np.isfinite(embedding).all():
            raise CatalogError(f"The embedding of item {item.item_id!r} holds a number that is not finite.")
        return embedding

    def nearest(self, residual: Floats) -> Identifier:
        """The identifier made of the nearest code of each level."""
        found: Identifier = ()
        for level in range(len(self._codes)):
            code = self._nearest_first(level, residual)[0]
            found = (*found, int(self._codes[level][code]))
            residual = residual - self._codebooks.levels[level][code]
        return found

    def nearest_free(self, residual: Floats, prefix: Identifier = ()) -> Identifier | None:
        """The nearest identifier with this prefix that is not taken; None if all are taken."""
        level = len(prefix)
        order = self._nearest_first(level, residual)
        codes = self._codes[level][order]
        if level == len(self._codes) - 1:
            free = codes[~np.isin(codes, self._taken.after(prefix))]
            return (*prefix, int(free[0])) if len(free) else None
        for code, number in zip(order.tolist(), codes.tolist(), strict=True):
            if (longer := (*prefix, number)) in self._full:
                continue
            if found := self.nearest_free(residual - self._codebooks.levels[level][code], longer):
                return found
            self._full.add(longer)
        return None

    def _nearest_first(self, level: int, residual: Floats) -> npt.NDArray[np.intp]:
        order = self._codebooks.nearest_first(level, residual)
        return order[self._codes[level][order] >= 0]


def _choose(
    item: NewItem, length: int, code_of: dict[str, int], taken: _TakenIdentifiers, quantiser: _Quantiser | None, collision: Collision
) -> tuple[Identifier, Identifier]:
    """The identifier that an item asks for, and the one that it gets; new tokens are added to `code_of`."""
    if item.identifier is not None:
        if len(item.identifier) != length:
            raise CatalogError(
                f"The identifier of item {item.item_id!r} has {len(item.identifier)} tokens, but those of the catalog have {length}."
            )
        wanted = tuple(code_of.setdefault(token, len(code_of)) for token in item.identifier)
        if collision is Collision.NEAREST_FREE and wanted in taken:
            raise TakenError(
                f"The identifier {''.join(item.identifier)} of item {item.item_id!r} belongs to another item: send an embedding, or "
                f"let them share it (on_collision: {Collision.SHARED.value})."
            )
        return wanted, wanted
    if quantiser is None:
        raise CatalogError(f"Without codebooks there is no identifier for the embedding of item {item.item_id!r}: send an identifier.")
    embedding = quantiser.residual(item)
    nearest = quantiser.nearest(embedding)
    if collision is Collision.SHARED:
        return nearest, nearest
    if (free := quantiser.nearest_free(embedding)) is None:
        raise TakenError(f"No identifier is free for item {item.item_id!r}: let it share one (on_collision: {Collision.SHARED.value}).")
    return nearest, free


def _check_names(catalog: Catalog, items: Sequence[NewItem]) -> None:
    names = [item.item_id for item in items]
    known = np.flatnonzero(catalog.indices_of(names) >= 0)
    if known.size:
        raise TakenError(f"The catalog has an item {names[known[0]]!r} already.")
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise CatalogError(f"Item {twice!r} is named twice: item ids must be unique.")


def _append(
    catalog: Catalog, items: Sequence[NewItem], codes: Sequence[Identifier], tokens: Sequence[str], known: Sequence[Mapping[str, Any]]
) -> Catalog:
    columns = {
        name: catalog.attributes.get(name, AttributeColumn.empty(len(catalog))).extended([attributes.get(name) for attributes in known])
        for name in sorted(catalog.attributes.keys() | {name for attributes in known for name in attributes})
    }
    return Catalog.of(
        TextColumn.join([catalog.item_ids, TextColumn.of(item.item_id for item in items)]),
        tokens,
        np.concatenate([catalog.codes, np.array(codes, np.int64).astype(np.uint32)]),
        columns,
    )
