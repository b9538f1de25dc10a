"""Catalog files, good and bad."""

import json
from pathlib import Path

import numpy as np
import pytest

from drafting.catalog import catalog as catalog_module
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.loading import load_catalog

PAIRS = {"shampoo": ["<a_1>", "<b_2>"], "soap": ["<a_1>", "<b_3>"], "twin": ["<a_1>", "<b_2>"]}


def test_index_json(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text(json.dumps(PAIRS))
    catalog = load_catalog(path)
    assert len(catalog) == 3
    assert catalog.identifier_length == 2
    assert catalog.index_of("soap") == 1
    assert catalog.index_of("nothing") is None
    assert catalog.identifier(1) == ("<a_1>", "<b_3>")
    assert [catalog.title(item) for item in range(3)] == [None] * 3


def test_saved_catalog_is_the_same_catalog(tmp_path: Path) -> None:
    catalog = catalog_of(PAIRS, titles={"soap": "Söap"})
    catalog.save(tmp_path / "catalog.jsonl")
    loaded = load_catalog(tmp_path / "catalog.jsonl")
    assert loaded.version == catalog.version
    assert [loaded.title(item) for item in range(3)] == [None, "Söap", None]
    np.testing.assert_array_equal(loaded.codes, catalog.codes)


def test_version_changes_with_items_identifiers_and_titles() -> None:
    versions = {
        catalog_of(PAIRS).version,
        catalog_of(PAIRS, titles={"soap": "Soap"}).version,
        catalog_of(PAIRS | {"soap": ["<a_1>", "<b_2>"]}).version,
        catalog_of({("other" if item == "soap" else item): tokens for item, tokens in PAIRS.items()}).version,
    }
    assert len(versions) == 4


def test_token_ids_follow_the_vocabulary() -> None:
    catalog = catalog_of(PAIRS)
    ids = catalog.token_ids({"<a_1>": 10, "<b_2>": 20, "<b_3>": 30})
    assert ids.tolist() == [[10, 20], [10, 30], [10, 20]]


def test_beauty_loads_with_the_published_counts(beauty: Catalog) -> None:
    assert len(beauty) == 12035
    shared = np.unique(beauty.codes, axis=0, return_counts=True)[1]
    assert (shared[shared > 1].sum(), (shared > 1).sum()) == (21, 9)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "The catalog is empty"),
        ([("a", ["x"]), ("a", ["y"])], "Item 'a' appears twice"),
        ([("a", ["x", "y"]), ("b", ["z"])], "identifier of item 'b' has 1 tokens, but that of item 'a' has 2"),
        ([("a", [])], "Item 'a' has an empty identifier"),
        ([("a", list("abcdefghi"))], "Identifiers have at most 8 tokens, got 9"),
    ],
)
def test_bad_catalogs_name_the_item_and_the_reason(pairs: list, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        catalog_of(pairs)


def test_more_tokens_below_a_prefix_than_can_be_numbered_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "MAX_CODES", 2)
    pairs = {"a": ["<a_1>", "<b_1>"], "b": ["<a_1>", "<b_2>"]}
    assert len(catalog_of(pairs)) == 2
    with pytest.raises(CatalogError, match=r"^A prefix is continued by 3 different tokens; at most 2 are possible\.$"):
        catalog_of(pairs | {"c": ["<a_1>", "<b_3>"]})


def test_unknown_token_names_the_first_item_that_needs_it() -> None:
    with pytest.raises(CatalogError, match=r"no token '<b_3>', which the identifier of item 'soap' needs \(1 of"):
        catalog_of(PAIRS).token_ids({"<a_1>": 1, "<b_2>": 2})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", "[1, 2]", "is not an index of the form"),
        ("c.json", '{"a": ["x"', "is not JSON"),
        ("c.json", '{"a": {"x": 1}}', "is not an index of the form"),
        ("c.json", '{"a": "x"}', "The identifier of item 'a' is not a row of tokens"),
        ("c.jsonl", '{"item_id": "a", "identifier": ["x"]}\n{"item_id": 5}\n', "Line 2 of the catalog"),
        ("c.json", '{"a": ["x"], "a": ["y"]}', "Item 'a' appears twice"),
        ("c.jsonl", "\n", "The catalog is empty"),
        ("c.json", '{"item_id": "a"}\n' * 2, r"is not JSON: Extra data.*\. If it has an item a line, call it \.jsonl\.$"),
        ("c.csv", "item_id,identifier\na,<a_1>\n", r"Line 1 of .* is not JSON: .* none of the endings \.catalog, \.json, "),
        ("c.csv", "1,<a_1>\n", r"Line 1 of .* none of the endings \.catalog, \.json, "),
        ("c.jsonl", "item_id,identifier\na,<a_1>\n", r"Line 1 of .* is not JSON: [^.]*\.$"),
    ],
)
def test_bad_files_are_answered_in_a_sentence(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CatalogError, match=message):
        load_catalog(tmp_path / name)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"cannot be read: No such file"):
        load_catalog(tmp_path / "nothing.json")
