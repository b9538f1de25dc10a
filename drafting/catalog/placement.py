"""New items for a catalog that is there: an identifier for each, and the catalog that has them too.

Invariant: what is there stays as it is. An old item keeps its index, its identifier and its attributes, and new ones come behind all old
ones, so whatever is known by index goes on to hold. Nothing is done by halves: either all items find a place or none does.

An embedding gets the nearest codes of the codebooks, level by level, among those that the catalog has: a token that no item has is one
that no model was trained to write. Items are placed one after the other, in their order.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.codebooks import Codebooks
from drafting.catalog.freshness import ADDED_AT, day_of
from drafting.catalog.pattern import TokenPattern
from drafting.catalog.text_column import TextColumn
from drafting.trie.arrays import TrieArrays

Identifier = tuple[int, ...]
Floats = npt.NDArray[np.float32]


class Collision(StrEnum):
    """What becomes of an item whose identifier belongs to another one already.

    Attributes:
        NEAREST_FREE: it gets the nearest code of the last level that is free behind the same prefix, or else behind the next nearest one.
        SHARED: both have it, and are listed together.
    """

    NEAREST_FREE = "nearest-free"
    SHARED = "shared"


class TakenError(CatalogError):
    """A name or an identifier that belongs to another item; the message is a sentence."""


class NewItem(msgspec.Struct, frozen=True):
    """An item that a catalog does not have yet.

    Attributes:
        embedding: `[dims]` numbers as the codebooks were made from; None for an item that brings its identifier.
        identifier: its tokens; None for an item that brings an embedding.
        attributes: what is known of it besides, its title too.
    """

    item_id: str
    embedding: list[float] | None = None
    identifier: list[str] | None = None
    attributes: dict[str, Any] = {}


class PlacedItem(msgspec.Struct, frozen=True):
    """An item and the identifier that it has got.

    Attributes:
        moved: whether a nearer identifier belonged to another item.
    """

    item_id: str
    identifier: tuple[str, ...]
    moved: bool


def grow(
    catalog: Catalog, items: Sequence[NewItem], collision: Collision, codebooks: Codebooks | None, added_at: int
) -> tuple[Catalog, list[PlacedItem]]:
    """The catalog with new items behind its own.

    Args:
        codebooks: what made the catalog's identifiers; None if nobody knows, and all items must bring theirs.
        added_at: what the attribute `added_at` says of items that do not say it themselves, seconds since 1970.

    Raises:
        TakenError: an item is there already, or all identifiers are taken that it might have got.
        CatalogError: an item that can't be placed, or codebooks that are not the catalog's.
    """
    _check_names(catalog, items)
    known = [{ADDED_AT: added_at} | {name: value for name, value in item.attributes.items() if value is not None} for item in items]
    for item, attributes in zip(items, known, strict=True):
        if day_of(attributes[ADDED_AT]) is None:
            raise CatalogError(f"{ADDED_AT} of item {item.item_id!r} is neither seconds since 1970 nor an ISO date or time.")
    tokens = _Tokens(catalog)
    taken = _TakenIdentifiers(catalog.trie)
    quantiser = None if codebooks is None else _Quantiser(codebooks, tokens, catalog.identifier_length, taken)
    codes: list[Identifier] = []
    placed: list[PlacedItem] = []
    for item in items:
        nearest, given = _place(item, catalog.identifier_length, tokens, taken, quantiser, collision)
        taken.add(given)
        codes.append(given)
        placed.append(PlacedItem(item.item_id, tokens.texts(given), given != nearest))
    return _joined(catalog, items, codes, tokens.all, known), placed


class _Tokens:
    """The catalog's tokens by number, and behind them those that new items bring."""

    def __init__(self, catalog: Catalog) -> None:
        self.all = list(catalog.tokens)
        self.known = {token: number for number, token in enumerate(self.all)}

    def numbers(self, texts: Sequence[str]) -> Identifier:
        for text in texts:
            if text not in self.known:
                self.known[text] = len(self.all)
                self.all.append(text)
        return tuple(self.known[text] for text in texts)

    def texts(self, numbers: Identifier) -> tuple[str, ...]:
        return tuple(self.all[number] for number in numbers)


class _TakenIdentifiers:
    """Which identifiers belong to an item: those of the catalog's trie, and those that were given since."""

    def __init__(self, trie: TrieArrays) -> None:
        self._trie = trie
        self._given: dict[Identifier, set[int]] = {}

    def add(self, identifier: Identifier) -> None:
        self._given.setdefault(identifier[:-1], set()).add(identifier[-1])

    def behind(self, prefix: Identifier) -> npt.NDArray[np.int64]:
        """The last codes that are taken behind all codes but the last."""
        node = self._trie.find(prefix)
        there = np.empty(0, np.int64) if node is None else self._trie.codes_below(node).astype(np.int64)
        return np.append(there, np.array(list(self._given.get(prefix, ())), np.int64))

    def __contains__(self, identifier: Identifier) -> bool:
        return identifier[-1] in self.behind(identifier[:-1])


class _Quantiser:
    """Identifiers of embeddings, in the catalog's codes."""

    def __init__(self, codebooks: Codebooks, tokens: _Tokens, length: int, taken: _TakenIdentifiers) -> None:
        if len(codebooks.levels) != length:
            raise CatalogError(
                f"The codebooks have {len(codebooks.levels)} levels, but identifiers of the catalog have {length} tokens: they do not "
                "belong together."
            )
        pattern = TokenPattern()
        self._codebooks = codebooks
        self._taken = taken
        # Per level, the catalog's code of each code of the codebooks; -1 for one that the catalog does not have.
        self._codes = [
            np.array([tokens.known.get(pattern.token(level, code), -1) for code in range(len(centroids))], np.int64)
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
        """The nearest code of each level."""
        found: Identifier = ()
        for level in range(len(self._codes)):
            code = self._nearest_first(level, residual)[0]
            found = (*found, int(self._codes[level][code]))
            residual = residual - self._codebooks.levels[level][code]
        return found

    def nearest_free(self, residual: Floats, prefix: Identifier = ()) -> Identifier | None:
        """The nearest identifier behind a prefix that is not taken; None if all are."""
        level = len(prefix)
        order = self._nearest_first(level, residual)
        codes = self._codes[level][order]
        if level == len(self._codes) - 1:
            free = codes[~np.isin(codes, self._taken.behind(prefix))]
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


def _place(
    item: NewItem, length: int, tokens: _Tokens, taken: _TakenIdentifiers, quantiser: _Quantiser | None, collision: Collision
) -> tuple[Identifier, Identifier]:
    """The identifier that an item asks for, and the one that it gets."""
    if item.identifier is not None:
        if len(item.identifier) != length:
            raise CatalogError(
                f"The identifier of item {item.item_id!r} has {len(item.identifier)} tokens, but those of the catalog have {length}."
            )
        wanted = tokens.numbers(item.identifier)
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
    there = np.flatnonzero(catalog.indices_of(names) >= 0)
    if there.size:
        raise TakenError(f"The catalog has an item {names[there[0]]!r} already.")
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise CatalogError(f"Item {twice!r} is named twice: item ids must be unique.")


def _joined(
    catalog: Catalog, items: Sequence[NewItem], codes: Sequence[Identifier], tokens: Sequence[str], known: Sequence[Mapping[str, Any]]
) -> Catalog:
    names = sorted(catalog.attributes.keys() | {name for attributes in known for name in attributes})
    columns = {
        name: catalog.attributes.get(name, AttributeColumn.empty(len(catalog))).extended([attributes.get(name) for attributes in known])
        for name in names
    }
    return Catalog.of(
        TextColumn.join([catalog.item_ids, TextColumn.of(item.item_id for item in items)]),
        tokens,
        np.concatenate([catalog.codes, np.array(codes, np.int64).astype(np.uint32)]),
        columns,
    )
