"""The forms in which users have catalogs: the same items give the same catalog, whatever the form."""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import CatalogError
from drafting.catalog.loading import load_catalog
from drafting.catalog.pattern import split_identifier

ROWS = {"shampoo": [3, 17, 200], "soap": [3, 17, 9], "comb": [4, 0, 9]}
TOKENS = {item: [f"<{letter}_{code}>" for letter, code in zip("abc", codes, strict=True)] for item, codes in ROWS.items()}
EXPECTED = catalog_of(TOKENS)


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value) if path.suffix == ".json" else "\n".join(map(json.dumps, value)))
    return path


@pytest.mark.parametrize("form", ["tokens", "integers", "text", "bracketed"])
def test_index_json_of_every_kind_is_the_same_catalog(tmp_path: Path, form: str) -> None:
    index = {
        "tokens": TOKENS,
        "integers": ROWS,
        "text": {item: "".join(tokens) for item, tokens in TOKENS.items()},
        "bracketed": {item: "<|sid_begin|>" + "".join(tokens) + "<|sid_end|>" for item, tokens in TOKENS.items()},
    }[form]
    assert load_catalog(write(tmp_path / "index.json", index)).version == EXPECTED.version


def test_jsonl_and_parquet_with_attributes_are_the_same_catalog(tmp_path: Path) -> None:
    attributes = [{"price": 2.5, "tags": ["hair", "wet"]}, {"country": "DE"}, {"price": 3.0}]
    titles = ["Shampoo", None, "Kämme"]
    lines = [
        {"item_id": item, "codes": codes, "attributes": known} | ({"title": title} if title else {})
        for (item, codes), known, title in zip(ROWS.items(), attributes, titles, strict=True)
    ]
    from_lines = load_catalog(write(tmp_path / "catalog.jsonl", lines))
    columns = {"item_id": list(ROWS), "codes": list(ROWS.values()), "title": titles}
    columns |= {name: [known.get(name) for known in attributes] for name in ("price", "tags", "country")}
    pq.write_table(pa.table(columns), tmp_path / "catalog.parquet")
    from_parquet = load_catalog(tmp_path / "catalog.parquet")
    del columns["codes"]
    pq.write_table(pa.table(columns | {"identifier": list(TOKENS.values())}), tmp_path / "tokens.parquet")
    assert from_lines.version == from_parquet.version == load_catalog(tmp_path / "tokens.parquet").version
    assert [from_parquet.known_attributes(item) for item in range(3)] == [
        {"price": 2.5, "tags": ["hair", "wet"], "title": "Shampoo"},
        {"country": "DE"},
        {"price": 3.0, "title": "Kämme"},
    ]
    from_lines.save(tmp_path / "again.jsonl")
    assert load_catalog(tmp_path / "again.jsonl").version == from_lines.version
    assert from_lines.version != EXPECTED.version


def test_a_pattern_says_how_integers_become_tokens(tmp_path: Path) -> None:
    path = write(tmp_path / "index.json", ROWS)
    assert load_catalog(path, "<|sid_{level}_{code}|>").identifier(0) == ("<|sid_1_3|>", "<|sid_2_17|>", "<|sid_3_200|>")
    for pattern, message in (("<a>", "holds {code}"), ("{code}{x}", "holds {code}"), ("{code", "malformed")):
        with pytest.raises(CatalogError, match=message):
            load_catalog(path, pattern)


def test_progress_counts_every_item(tmp_path: Path) -> None:
    counted: list[int] = []
    load_catalog(
        write(tmp_path / "c.jsonl", [{"item_id": str(i), "codes": [i % 300, i % 7]} for i in range(70_000)]), on_items=counted.append
    )
    assert counted == [50_000, 20_000]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("<a_1><b_2>", ["<a_1>", "<b_2>"]),
        ("<|sid_begin|><s_a_1><s_b_2><|sid_end|>", ["<s_a_1>", "<s_b_2>"]),
        ("<|item_start|><s_a_1><|item_end|>", ["<s_a_1>"]),
        ("<a_1>, <b_2>", None),
        ("<a_1><|x_end|><b_2>", None),
        ("plain", None),
        ("", None),
    ],
)
def test_identifiers_written_as_one_text(text: str, tokens: list[str] | None) -> None:
    split = split_identifier(text)
    assert (None if split is None else split.tokens) == tokens


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"item_id": "a", "codes": ["x"]}', r"Line 1 .* of the form .*: Expected `int`"),
        ('{"item_id": "a"', "Line 1 .* is not JSON"),
        ('{"item_id": "a"}', "Item 'a' has no identifier, or an empty one: `atspeed catalog build` makes identifiers"),
        ('{"item_id": "a", "identifier": ["x"], "attributes": {"title": "t"}}', "Line 1 .* has a title among its attributes"),
        ('{"item_id": "a", "identifier": ["x"], "codes": [1]}', "Line 1 .* Item 'a' has an identifier and codes, either of which"),
        ('{"item_id": "a", "codes": [3, -1]}', "An identifier has the code -1: codes count from 0"),
        (json.dumps({"item_id": "a", "codes": [1] * 9}), "at most 8 tokens, got 9"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "c.jsonl").write_text(line)
    with pytest.raises(CatalogError, match=message):
        load_catalog(tmp_path / "c.jsonl")


def test_bad_parquet_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    for columns, message in (
        ({"item": ["a"]}, "needs the columns item_id, and identifier or codes; it has item"),
        ({"item_id": ["a", None], "codes": [[1], [2]]}, "without an id"),
        ({"item_id": ["a", "b"], "codes": [[1], [2, 3]]}, "of 1, 2 tokens"),
        ({"item_id": ["a", "a"], "codes": [[1], [2]]}, "Item 'a' appears twice"),
        ({"item_id": ["a", "b"], "codes": [[1, 2], [3, -1]]}, "An identifier has the code -1: codes count from 0"),
    ):
        pq.write_table(pa.table(columns), path)
        with pytest.raises(CatalogError, match=message):
            load_catalog(path)
    pq.write_table(pa.table([["a"], [[1]], ["x"], ["y"]], names=["item_id", "codes", "brand", "brand"]), path)
    with pytest.raises(CatalogError, match="has two columns of the name brand: rename one"):
        load_catalog(path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(CatalogError, match="cannot be read"):
        load_catalog(path)


@pytest.mark.parametrize("form", ["strings", "large", "dictionary", "integers", "floats", "small floats", "bracketed", "texts", "nested"])
def test_parquet_of_every_kind_is_the_same_catalog(tmp_path: Path, form: str) -> None:
    """Numbers of items and codes as pandas and tensors leave them, and identifiers in all the forms of JSONL."""
    names = [10**12, 10**12 + 7, 3]
    texts = ["".join(tokens) for tokens in TOKENS.values()]
    identifiers = {
        "integers": pa.array(ROWS.values(), pa.list_(pa.uint16())),
        "floats": pa.array([[float(code) for code in row] for row in ROWS.values()]),
        "small floats": pa.array([[float(code) for code in row] for row in ROWS.values()], pa.list_(pa.float16(), 3)),
        "bracketed": pa.array([f"<|sid_begin|>{text}<|sid_end|>" for text in texts]),
        "texts": pa.array(texts, pa.large_string()),
        "dictionary": pa.array(texts).dictionary_encode(),
        "nested": pa.array(TOKENS.values(), pa.large_list(pa.dictionary(pa.int8(), pa.string()))),
    }.get(form, pa.array(TOKENS.values()))
    item_ids = {
        "strings": pa.array(map(str, names)),
        "large": pa.array(map(str, names), pa.large_string()),
        "dictionary": pa.array(map(str, names)).dictionary_encode(),
        "integers": pa.array(names, pa.uint64()),
    }.get(form, pa.array(map(float, names)))
    pq.write_table(pa.table({"item_id": item_ids, "identifier": identifiers}), tmp_path / "catalog.parquet")
    expected = catalog_of(zip(map(str, names), TOKENS.values(), strict=True))
    assert load_catalog(tmp_path / "catalog.parquet").version == expected.version


@pytest.mark.parametrize(
    ("item_id", "identifier", "sentence"),
    [
        (1.5, [1], "has 1.5 in its column item_id, which is not a whole number up to 2^53."),
        (float("nan"), [1], "has nan in its column item_id, which is not a whole number up to 2^53."),
        (float("inf"), [1], "has inf in its column item_id, which is not a whole number up to 2^53."),
        (2.0**60, [1], "in its column item_id, which is not a whole number up to 2^53."),
        (True, [1], "holds values of type bool: it needs texts or whole numbers."),
        (datetime(2026, 1, 1, tzinfo=UTC), [1], "holds values of type timestamp[us, tz=UTC]: it needs texts or whole numbers."),
        ("a", [1.25], "has 1.25 in its column identifier, which is not a whole number up to 2^53."),
        ("a", [float("nan")], "has nan in its column identifier, which is not a whole number up to 2^53."),
        ("a", [True], "The column identifier of"),
        ("a", [2**62], "has a code beyond 2^53."),
        ("a", [None, 1.0], "has an identifier with a missing token."),
        ("a", "shampoo", "The identifier of item 'a' is not a row of tokens such as <a_1><b_2>, got 'shampoo'."),
        ("a", "", "The identifier of item 'a' is not a row of tokens such as <a_1><b_2>, got ''."),
        ("a", 7, "has identifiers of type int64: it needs lists of tokens or of whole numbers, or texts of tokens."),
    ],
)
def test_what_parquet_holds_beside_texts_and_whole_numbers_is_refused(
    tmp_path: Path, item_id: object, identifier: object, sentence: str
) -> None:
    path = tmp_path / "catalog.parquet"
    pq.write_table(pa.table({"item_id": [item_id], "identifier": [identifier]}), path)
    with pytest.raises(CatalogError, match=re.escape(sentence)):
        load_catalog(path)


@pytest.mark.parametrize("odd", ["item_id", "identifier", "country"])
def test_parquet_with_texts_that_are_not_utf_8_is_refused(tmp_path: Path, odd: str) -> None:
    columns = {"item_id": [b"a", b"b"], "identifier": [b"<a_1><b_1>", b"<a_1><b_2>"], "country": [b"DE", b"FR"]}
    columns[odd][1] += b"\xff"
    texts = {name: pa.array(values, pa.binary()).view(pa.string()) for name, values in columns.items()}
    pq.write_table(pa.table(texts), tmp_path / "catalog.parquet")
    with pytest.raises(CatalogError, match=r"catalog\.parquet cannot be read: it has texts that are not UTF-8\."):
        load_catalog(tmp_path / "catalog.parquet")


@pytest.mark.parametrize("name", ["catalog.json", "catalog.jsonl", "catalog.parquet", "catalog.catalog", "catalog"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(CatalogError, match=r"^The catalog .* cannot be read: it is not a regular file\.$"):
        load_catalog(tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path / name)
    with pytest.raises(CatalogError, match="not a regular file"):
        load_catalog(tmp_path / "link")
