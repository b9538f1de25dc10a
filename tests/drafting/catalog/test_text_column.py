"""Texts as arrays against lists of strings, and items found by name against a dictionary."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drafting.catalog import text_column
from drafting.catalog.text_column import ItemIndex, TextColumn, distinct

TEXTS = st.lists(st.text(st.characters(codec=None), max_size=20), max_size=30)


@given(TEXTS, st.data())
def test_a_column_is_the_list_of_its_texts(texts: list[str], data: st.DataObject) -> None:
    column = TextColumn.of(texts)
    assert list(column) == texts
    assert column[1:7] == tuple(texts[1:7])
    assert list(TextColumn.join([column, TextColumn.of([]), column])) == texts + texts
    if texts:
        rows = data.draw(st.lists(st.integers(0, len(texts) - 1)))
        assert list(column.take(np.array(rows, np.int64))) == [texts[row] for row in rows]
        assert column.texts_of(np.array(rows, np.int64)) == [texts[row] for row in rows]


@given(TEXTS)
def test_equal_texts_and_no_others_have_equal_hashes(texts: list[str]) -> None:
    hashes = TextColumn.of(texts).hashes().tolist()
    assert len(set(hashes)) == len(set(texts))
    assert dict(zip(texts, hashes, strict=True)) == dict(zip(reversed(texts), reversed(hashes), strict=True))


@given(TEXTS)
def test_distinct_texts_are_numbered_in_order_of_appearance(texts: list[str]) -> None:
    numbers, first = distinct(TextColumn.of(texts))
    order = list(dict.fromkeys(texts))
    assert numbers.tolist() == [order.index(text) for text in texts]
    assert first.tolist() == [texts.index(text) for text in order]


@given(st.lists(st.text(max_size=12), min_size=1, max_size=40), TEXTS, st.booleans())
def test_the_index_finds_what_is_there_and_the_first_duplicate(names: list[str], asked: list[str], are_few: bool) -> None:
    index = ItemIndex.of(TextColumn.of(names))
    assert index.duplicate() == next((row for row, name in enumerate(names) if name in names[:row]), None)
    unique = list(dict.fromkeys(names))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_column, "FEW_NAMES", len(unique) if are_few else 0)
        found = ItemIndex.of(TextColumn.of(unique)).find(asked + unique)
    assert found.tolist() == [unique.index(name) if name in unique else -1 for name in asked + unique]


def test_a_shared_hash_costs_a_second_look_and_no_wrong_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_column, "FEW_NAMES", 0)
    names = TextColumn.of(["a", "b", "c"])
    index = ItemIndex(names, np.sort(np.full(3, names.hashes()[1])), np.array([0, 1, 2], np.int32))
    assert index.duplicate() is None
    assert index.find(["b", "d"]).tolist() == [1, -1]


def test_offsets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit together"):
        TextColumn(np.array([0, 5]), np.zeros(5, np.uint8))
