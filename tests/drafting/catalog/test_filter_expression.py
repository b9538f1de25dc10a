"""Filter expressions against Python on the same items, and what they say of mistakes."""

import numpy as np
import pytest

from drafting.catalog.builder import CatalogBuilder, catalog_of
from drafting.catalog.catalog import Catalog
from drafting.catalog.filter_expression import ExpressionError, items_where

ITEMS = [
    {"country": "DE", "price": 10, "tags": ["sale", "hair"], "stock": True},
    {"country": "DE", "price": 25.5, "tags": [], "stock": False},
    {"country": "FR", "price": 5, "name": 'say "hi"', "is-new": 1},
    {"price": "5", "tags": "sale", "stock": 3},
    {},
]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    builder = CatalogBuilder()
    names = dict.fromkeys(name for item in ITEMS for name in item)
    attributes = {name: [item.get(name) for item in ITEMS] for name in names}
    builder.add([str(i) for i in range(len(ITEMS))], [["<a_1>", f"<b_{i}>"] for i in range(len(ITEMS))], attributes)
    return builder.catalog()


@pytest.mark.parametrize(
    ("expression", "items"),
    [
        ('country = "DE"', [0, 1]),
        ('country != "DE"', [2]),
        ('not country = "DE"', [2, 3, 4]),
        ("price < 20", [0, 2]),
        ("price >= 10 and price <= 25.5", [0, 1]),
        ("price = 5.0", [2]),
        ('price = "5"', [3]),
        ('price > "4"', [3]),
        ('tags has "sale"', [0]),
        ("stock", [0, 3]),
        ("stock = true", [0]),
        ("stock = 1", []),
        ('country in ["FR", "IT"]', [2]),
        ("country in []", []),
        ('country in ["DE"] and (price > 20 or tags has "sale") and not stock = false', [0]),
        ('name = "say \\"hi\\""', [2]),
        ("is-new = 1", [2]),
        ('country = "FR" or country = "DE" and price < 20', [0, 2]),
        ("not not stock", [0, 3]),
    ],
)
def test_expressions_by_hand(catalog: Catalog, expression: str, items: list[int]) -> None:
    assert np.flatnonzero(items_where(expression, catalog).members()).tolist() == items


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ('country = "DE" and and', "makes no sense at character 20: 'and'"),
        ("price <", "ends at character 7, where more is expected"),
        ("price < 20)", r"makes no sense at character 11: '\)'"),
        ("(price < 20", "ends at character 11"),
        ("price < 20 ; drop", "makes no sense at character 12: '; drop'"),
        ('color = "red"', "no attribute 'color' \\(character 1\\); the catalog has country, is-new, name"),
        ("price < 3 or size", "no attribute 'size' \\(character 14\\)"),
        ("", "ends at character 0"),
        ("country = DE", "makes no sense at character 11"),
    ],
)
def test_mistakes_are_placed(catalog: Catalog, expression: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        items_where(expression, catalog)


def test_random_expressions_equal_python(catalog: Catalog) -> None:
    rng = np.random.default_rng(0)
    prices = [item.get("price") for item in ITEMS]

    def draw(depth: int) -> tuple[str, list[bool]]:
        if depth == 0 or rng.random() < 0.2:
            bound = int(rng.integers(30))
            return f"price < {bound}", [isinstance(price, int | float) and price < bound for price in prices]
        left, ours = draw(depth - 1)
        if rng.random() < 0.3:
            return f"not ({left})", [not value for value in ours]
        right, theirs = draw(depth - 1)
        word = str(rng.choice(["and", "or"]))
        pairs = list(zip(ours, theirs, strict=True))
        return f"({left}) {word} ({right})", [(a and b) if word == "and" else (a or b) for a, b in pairs]

    for _ in range(50):
        expression, expected = draw(4)
        assert items_where(expression, catalog).members().tolist() == expected, expression


QUOTES = "texts are written in quotes, numbers and booleans without"


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ('a and year >= "1990"', f"At character 7, year is compared with texts, but its values are numbers; {QUOTES}."),
        ("not (name = 3)", f"At character 6, name is compared with numbers, but its values are texts; {QUOTES}."),
        ("name in [3, true]", f"At character 1, name is compared with booleans, numbers, but its values are texts; {QUOTES}."),
        ('tags = "sale"', "At character 1, tags is compared with texts, but its values are lists; look into lists with has."),
        ('name has "x"', "At character 1, has looks into lists, but the values of name are texts; compare them with =."),
        ('a != "x"', f"At character 1, a is compared with texts, but its values are booleans; {QUOTES}."),
    ],
)
def test_a_comparison_with_what_no_value_is_is_a_mistake_where_it_is_asked(expression: str, sentence: str):
    attributes = {"year": [1990, None, 2000.5], "name": ["x", "y", None], "tags": [["sale"], [], None], "a": [True, False, True]}
    identifiers = {f"item-{number}": ["<a_0>", f"<b_{number}>"] for number in range(3)}
    catalog = catalog_of(identifiers, attributes=attributes | {"mixed": [1, "x", None]})
    with pytest.raises(ExpressionError) as error:
        items_where(expression, catalog, checks_kinds=True)
    assert str(error.value) == sentence
    assert len(items_where(expression, catalog)) < 4
    for sound in ("year > 3", 'mixed = "x" and mixed < 4', 'name in ["x", 3]', "name in []", "a", "year = 1990 or a = true", "tags has 3"):
        items_where(sound, catalog, checks_kinds=True)
