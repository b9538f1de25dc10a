"""Attributes that no client can be told, or that cost without a bound: refused at every door, and harmless in an unchecked catalog."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafting.catalog.artefact import load_artefact, save_artefact
from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.builder import CatalogBuilder, catalog_of
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.filter_expression import items_where
from drafting.catalog.json_values import MAX_ATTRIBUTES, MAX_NAME_CHARACTERS, MAX_NESTING, MAX_VALUE_CHARACTERS, untellable, unusable
from drafting.catalog.loading import load_catalog
from drafting.catalog.placement import Collision, NewItem, add_items
from drafting.catalog.text_column import TextColumn

IDENTIFIERS = {f"item-{i}": ["<a_0>", f"<b_{i}>"] for i in range(6)}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -(2**63), 2**64 - 1, 1.5, -0.0, "", "naïve 日本 \U0001f600", [], {}, {"a": [1, {"b": None}]}),
        *(nested(MAX_NESTING), "é" * MAX_VALUE_CHARACTERS),
    ],
)
def test_what_json_can_carry_is_taken(value: Any) -> None:
    assert unusable(value) is None
    assert untellable(value) is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "holds a number that is not finite"),
        ([float("-inf")], "holds a number that is not finite"),
        (2**64, "holds an integer of more than 64 bits"),
        ({"a": [-(10**300)]}, "holds an integer of more than 64 bits"),
        ("\ud83d", "holds half of a surrogate pair, which UTF-8 can't carry"),
        ({"\udc00": 1}, "holds half of a surrogate pair, which UTF-8 can't carry"),
        (nested(MAX_NESTING + 1), f"is nested more than {MAX_NESTING} levels deep"),
        (nested(100_000), f"is nested more than {MAX_NESTING} levels deep"),
        ("a" * (MAX_VALUE_CHARACTERS + 1), "has more than 10,000 characters"),
        ([1] * MAX_VALUE_CHARACTERS, "has more than 10,000 characters"),
        (datetime(2026, 1, 1), "holds a datetime, which is no JSON value"),
        ([b"x"], "holds a bytes, which is no JSON value"),
    ],
)
def test_what_json_can_not_carry_is_told_apart(value: Any, reason: str) -> None:
    assert unusable(value) == reason


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        (
            '{"x": ' + "9" * 300 + "}",
            "Line 2 of the catalog .* can't be used. The attribute 'x' of item 'odd' holds an integer of more than 64",
        ),
        ('{"x": NaN}', "Line 2 of the catalog .* is not JSON"),
        ('{"x": -Infinity}', "Line 2 of the catalog .* is not JSON"),
        ('{"x": 1e999}', "Line 2 of the catalog .* Number out of range"),
        ('{"x": "\\ud800"}', "Line 2 of the catalog .* is not JSON"),
        ('{"\\ud800": 1}', "Line 2 of the catalog .* is not JSON"),
        ('{"x": ' + "[" * 500 + "]" * 500 + "}", "Line 2 .* The attribute 'x' of item 'odd' is nested more than 8 levels deep."),
        ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "Line 2 of the catalog .* is not JSON"),
        ('{"x": "' + "a" * 20_000 + '"}', "Line 2 .* The attribute 'x' of item 'odd' has more than 10,000 characters."),
        ('{"": 1}', f"Line 2 .* The attribute '' of item 'odd' has a name of 0 characters, but 1 to {MAX_NAME_CHARACTERS} are possible."),
        ('{"' + "n" * 200 + '": 1}', "Line 2 .* The attribute 'nnn.*…' of item 'odd' has a name of 200 characters"),
    ],
    ids=range(11),
)
def test_a_line_that_holds_an_odd_attribute_is_named(tmp_path: Path, attributes: str, sentence: str) -> None:
    path = tmp_path / "catalog.jsonl"
    lines = ['{"item_id": "even", "identifier": ["<a_1>"]}', f'{{"item_id": "odd", "identifier": ["<a_2>"], "attributes": {attributes}}}']
    path.write_text("\n".join(lines))
    with pytest.raises(CatalogError, match=sentence):
        load_catalog(path)


@pytest.mark.parametrize("text", ['{"\\ud800": ["<a_1>"]}', "[" * 100_000, '{"x": ' + "[" * 100_000 + "]" * 100_000 + "}"])
def test_an_index_with_an_odd_name_or_nesting_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "index.json"
    path.write_text(text)
    with pytest.raises(CatalogError, match=r"The (item|catalog) .*(half of a surrogate pair|is not JSON).*\."):
        load_catalog(path)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([1.5, None, float("nan"), 2.0]), "The attribute 'x' of item 'item-2' holds a number that is not finite."),
        (
            pa.array([None, None, None, datetime(2026, 1, 1)]),
            "The attribute 'x' of item 'item-3' holds a datetime, which is no JSON value.",
        ),
        (pa.array([[1.0], None, [float("inf")], []]), "The attribute 'x' of item 'item-2' holds a number that is not finite."),
    ],
    ids=["float", "time", "lists"],
)
def test_a_parquet_column_with_odd_values_names_the_item(tmp_path: Path, column: Any, reason: str) -> None:
    path = tmp_path / "catalog.parquet"
    names = list(IDENTIFIERS)[:4]
    pq.write_table(pa.table({"item_id": names, "identifier": [IDENTIFIERS[name] for name in names], "x": column}), path)
    with pytest.raises(CatalogError) as caught:
        load_catalog(path)
    assert str(caught.value) == reason


def test_names_that_differ_from_item_to_item_are_refused_before_they_cost_anything(tmp_path: Path) -> None:
    """800 KiB of items with 50,000 names made columns of 2 GB."""
    sentence = f"but {MAX_ATTRIBUTES} are the most: each is a column over all items"
    jsonl, parquet = tmp_path / "catalog.jsonl", tmp_path / "catalog.parquet"
    started = time.process_time()
    jsonl.write_text(
        "\n".join(
            json.dumps({"item_id": str(i), "identifier": [f"<a_{i}>"], "attributes": {f"n{i}-{j}": 1 for j in range(50)}})
            for i in range(1000)
        )
    )
    with pytest.raises(CatalogError, match=f"Line 3 of the catalog .* {sentence}"):
        load_catalog(jsonl)
    many = {f"n{i}": [1] for i in range(MAX_ATTRIBUTES + 1)}
    pq.write_table(pa.table({"item_id": ["a"], "identifier": [["<a_1>"]], **many}), parquet)
    with pytest.raises(CatalogError, match=sentence):
        load_catalog(parquet)
    with pytest.raises(CatalogError, match=sentence):
        CatalogBuilder().add(["a"], [["<a_1>"]], many)
    items = [NewItem(f"new-{i}", None, ["<a_1>", f"<b_{i}>"], {f"n{i}-{j}": 1 for j in range(50)}) for i in range(1000)]
    with pytest.raises(CatalogError, match=sentence):
        add_items(catalog_of(IDENTIFIERS), items, Collision.NEAREST_FREE, None, 0)
    assert time.process_time() - started < 5


def test_a_catalog_of_earlier_days_with_more_names_still_grows() -> None:
    base = catalog_of(IDENTIFIERS)
    columns = {f"n{i}": AttributeColumn.of_values([i] * len(base)) for i in range(MAX_ATTRIBUTES + 5)} | {
        "added_at": AttributeColumn.of_values([1] * len(base))
    }
    old = Catalog.of(base.item_ids, base.tokens, base.codes, columns)
    grown, _ = add_items(old, [NewItem("new", None, ["<a_0>", "<b_9>"], {"n3": 7})], Collision.NEAREST_FREE, None, 0)
    assert grown.known_attributes(len(base)) == {"n3": 7, "added_at": 0}
    with pytest.raises(CatalogError, match="are the most"):
        add_items(old, [NewItem("new", None, ["<a_0>", "<b_9>"], {"another": 7})], Collision.NEAREST_FREE, None, 0)


def test_odd_values_of_an_unchecked_catalog_are_left_out_and_match_nothing(tmp_path: Path) -> None:
    texts = ["NaN", "-Infinity", "9" * 330, '"\ud800"', "[" * 5000, "{", "", "1,2", '["a",NaN]', "1e999", '"fine"', "7"]
    base = catalog_of({f"item-{i}": ["<a_0>", f"<b_{i}>"] for i in range(len(texts))})
    column = AttributeColumn(np.arange(len(texts), dtype=np.int32), TextColumn.of(texts))
    path = tmp_path / "old.catalog"
    save_artefact(Catalog.of(base.item_ids, base.tokens, base.codes, {"x": column, "title": column}), path)
    catalog = load_artefact(path)
    values = [catalog.attributes["x"].value(item) for item in range(len(texts))]
    assert values == [None] * 10 + ["fine", 7]
    assert [catalog.title(item) for item in range(len(texts))] == [None] * 10 + ["fine", None]
    found = {
        expression: np.flatnonzero(items_where(expression, catalog).members()).tolist()
        for expression in ("x < 9", "x >= 9", 'x < "zebra"', 'x has "a"', "x = 7", 'x in ["fine", 1, 2]')
    }
    assert found == {"x < 9": [11], "x >= 9": [], 'x < "zebra"': [10], 'x has "a"': [], "x = 7": [11], 'x in ["fine", 1, 2]': [10]}
