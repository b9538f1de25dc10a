"""New items: the identifiers that they get, against a search through all of them, and the catalog that has them."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.builder import CatalogBuilder, catalog_of
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.codebooks import Codebooks
from drafting.catalog.freshness import ADDED_AT
from drafting.catalog.placement import Collision, NewItem, PlacedItem, TakenError, add_items

NOW = 1_795_400_000
LETTERS = "abc"


def codebooks_of(rng: np.random.Generator, codes: int = 4, levels: int = 3, dims: int = 5) -> Codebooks:
    """Random centroids, finer from level to level."""
    return Codebooks(tuple((rng.normal(size=(codes, dims)) / 2**level).astype(np.float32) for level in range(levels)))


def coded_catalog(codes: np.ndarray) -> Catalog:
    tokens = [[f"<{LETTERS[level]}_{code}>" for level, code in enumerate(row)] for row in codes.tolist()]
    return catalog_of([(f"old-{row}", identifier) for row, identifier in enumerate(tokens)])


def tokens_of(codes: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"<{LETTERS[level]}_{code}>" for level, code in enumerate(codes))


def nearest_free(codebooks: Codebooks, embedding: np.ndarray, taken: set[tuple[int, ...]], known: list[set[int]]) -> tuple[int, ...] | None:
    """The first identifier that is free, of all in the order of their distances level by level, written out."""

    def place(codes: tuple[int, ...]) -> tuple[int, ...]:
        residual, places = embedding.astype(np.float64), ()
        for level, code in enumerate(codes):
            distances = ((residual - codebooks.levels[level]) ** 2).sum(axis=1)
            places += (int((distances < distances[code]).sum()),)
            residual = residual - codebooks.levels[level][code]
        return places

    free = [codes for codes in product(*map(sorted, known)) if codes not in taken]
    return min(free, key=place, default=None)


@pytest.mark.parametrize("seed", range(6))
def test_items_get_the_nearest_free_identifier_one_after_the_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codebooks = codebooks_of(rng)
    rows = np.array(list(product(range(4), repeat=3)))[rng.permutation(64)[:30]]
    # The catalog has no item with the last code of the last level, so no new item may get it.
    rows = rows[rows[:, 2] < 3]
    catalog = coded_catalog(rows)
    known = [set(rows[:, level].tolist()) for level in range(3)]
    free = int(np.prod([len(codes) for codes in known])) - len(rows)
    embeddings = np.repeat(rng.normal(size=(free // 2 + 1, 5)), 2, axis=0)[:free]
    items = [NewItem(f"new-{row}", embedding=embedding.tolist()) for row, embedding in enumerate(embeddings)]
    grown, placed = add_items(catalog, items, Collision.NEAREST_FREE, codebooks, NOW)
    taken = {tuple(row) for row in rows.tolist()}
    moved = 0
    for item, embedding in zip(placed, embeddings, strict=True):
        expected = nearest_free(codebooks, embedding, taken, known)
        assert expected is not None
        assert item.identifier == tokens_of(expected)
        assert item.moved == (expected != nearest_free(codebooks, embedding, set(), known))
        assert grown.identifier(grown.index_of(item.item_id)) == item.identifier
        taken.add(expected)
        moved += item.moved
    assert moved
    assert grown.identifiers == len(grown) == len(catalog) + free
    with pytest.raises(TakenError, match="No identifier is free for item 'last'"):
        add_items(grown, [NewItem("last", embedding=[0.0] * 5)], Collision.NEAREST_FREE, codebooks, NOW)
    _, (shared,) = add_items(grown, [NewItem("last", embedding=embeddings[0].tolist())], Collision.SHARED, codebooks, NOW)
    assert shared == PlacedItem("last", tokens_of(nearest_free(codebooks, embeddings[0], set(), known) or ()), False)


def test_an_item_gets_the_codes_that_it_would_have_had() -> None:
    rng = np.random.default_rng(1)
    codebooks = codebooks_of(rng)
    catalog = coded_catalog(np.array(list(product(range(4), repeat=3))))
    embeddings = rng.normal(size=(40, 5)).astype(np.float32)
    items = [NewItem(f"new-{row}", embedding=embedding.tolist()) for row, embedding in enumerate(embeddings)]
    _, placed = add_items(catalog, items, Collision.SHARED, codebooks, NOW)
    assert [item.identifier for item in placed] == [tokens_of(tuple(row)) for row in codebooks.encode(embeddings).tolist()]


def test_a_grown_catalog_is_the_one_that_all_items_make() -> None:
    rng = np.random.default_rng(2)
    names = [f"item-{row}" for row in range(60)]
    identifiers = [tokens_of(tuple(row)) for row in rng.integers(6, size=(60, 3)).tolist()]
    attributes: dict[str, list[Any]] = {
        "title": [None if row % 3 else f"Title {row % 7}" for row in range(60)],
        "price": [row % 5 if row < 50 else None for row in range(60)],
        "new": [None if row < 50 else {"x": row} for row in range(60)],
        ADDED_AT: [None if row < 40 else NOW for row in range(60)],
    }
    whole, old = CatalogBuilder(), CatalogBuilder()
    whole.add(names, identifiers, attributes)
    old.add(names[:40], identifiers[:40], {name: values[:40] for name, values in attributes.items()})
    items = [
        NewItem(names[row], identifier=list(identifiers[row]), attributes={name: values[row] for name, values in attributes.items()})
        for row in range(40, 60)
    ]
    items = [NewItem(item.item_id, None, item.identifier, {k: v for k, v in item.attributes.items() if k != ADDED_AT}) for item in items]
    grown, placed = add_items(old.catalog(), items, Collision.SHARED, None, NOW)
    expected = whole.catalog()
    assert grown.version == expected.version
    np.testing.assert_array_equal(grown.codes, expected.codes)
    np.testing.assert_array_equal(grown.trie.leaf_of_item, expected.trie.leaf_of_item)
    assert [grown.known_attributes(item) for item in range(60)] == [expected.known_attributes(item) for item in range(60)]
    assert [grown.index_of(name) for name in names] == list(range(60))
    assert not any(item.moved for item in placed)


def test_a_column_grows_by_values_that_it_has_and_others() -> None:
    column = AttributeColumn.of_values(["x", None, "y"])
    for more in ([], [None], ["y", "z", None, "z"], ["y"]):
        grown = column.extended(more)
        assert [grown.value(row) for row in range(len(grown.codes))] == ["x", None, "y", *more]
        assert len(grown.values) == len({"x", "y", *more} - {None})
    assert [column.value(row) for row in range(3)] == ["x", None, "y"]


def test_what_an_item_says_of_its_own_age_holds() -> None:
    catalog = coded_catalog(np.array([[0, 0, 0]]))
    items = [
        NewItem("dated", identifier=["<a_0>", "<b_0>", "<c_1>"], attributes={ADDED_AT: "2026-11-01"}),
        NewItem("undated", identifier=["<a_0>", "<b_0>", "<c_2>"], attributes={ADDED_AT: None}),
    ]
    grown, _ = add_items(catalog, items, Collision.NEAREST_FREE, None, NOW)
    assert [grown.attributes[ADDED_AT].value(item) for item in range(3)] == [None, "2026-11-01", NOW]


SOME = coded_catalog(np.array([[0, 0, 0], [1, 1, 1]]))
BOOKS = codebooks_of(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("items", "codebooks", "error", "sentence"),
    [
        ([NewItem("old-1", embedding=[0.0] * 5)], BOOKS, TakenError, "The catalog has an item 'old-1' already."),
        ([NewItem("x", embedding=[0.0] * 5)] * 2, BOOKS, CatalogError, "Item 'x' is named twice: item ids must be unique."),
        (
            [NewItem("x", embedding=[0.0] * 5)],
            None,
            CatalogError,
            "Without codebooks there is no identifier for the embedding of item 'x': send an identifier.",
        ),
        ([NewItem("x", embedding=[0.0] * 4)], BOOKS, CatalogError, "The embedding of item 'x' has 4 numbers, but the codebooks take 5."),
        ([NewItem("x", embedding=[1e39] * 5)], BOOKS, CatalogError, "The embedding of item 'x' holds a number that is not finite."),
        ([NewItem("x", embedding=[float("nan")] * 5)], BOOKS, CatalogError, "The embedding of item 'x' holds a number that is not finite."),
        (
            [NewItem("x", identifier=["<a_0>"])],
            BOOKS,
            CatalogError,
            "The identifier of item 'x' has 1 tokens, but those of the catalog have 3.",
        ),
        (
            [NewItem("x", identifier=["<a_0>", "<b_0>", "<c_0>"])],
            BOOKS,
            TakenError,
            "The identifier <a_0><b_0><c_0> of item 'x' belongs to another item: send an embedding, or let them share it "
            "(on_collision: shared).",
        ),
        (
            [NewItem("x", identifier=["<a_0>", "<b_0>", "<c_1>"], attributes={ADDED_AT: "soon"})],
            None,
            CatalogError,
            "added_at of item 'x' is neither seconds since 1970 nor an ISO date or time.",
        ),
        (
            [NewItem("x", embedding=[0.0] * 5)],
            codebooks_of(np.random.default_rng(0), levels=2),
            CatalogError,
            "The codebooks have 2 levels, but identifiers of the catalog have 3 tokens: they do not belong together.",
        ),
    ],
)
def test_what_has_no_place(items: list[NewItem], codebooks: Codebooks | None, error: type[CatalogError], sentence: str) -> None:
    with pytest.raises(CatalogError) as raised:
        add_items(SOME, items, Collision.NEAREST_FREE, codebooks, NOW)
    assert type(raised.value) is error
    assert str(raised.value) == sentence


def test_codebooks_of_other_tokens_are_refused() -> None:
    other = catalog_of({"x": ["<x_1>", "<y_1>", "<z_1>"]})
    with pytest.raises(CatalogError, match="The catalog has no token such as <a_0>, which the codebooks give on level 1"):
        add_items(other, [NewItem("y", embedding=[0.0] * 5)], Collision.SHARED, BOOKS, NOW)
