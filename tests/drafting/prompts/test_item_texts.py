"""The texts of items are kept within bounds of memory, however long they are."""

import tracemalloc

import pytest

from drafting.catalog.builder import catalog_of
from drafting.prompts.views import ItemTexts


@pytest.mark.parametrize(("letters", "items"), [(10, 3), (200_000, 100), (0, 3)])
def test_texts_that_are_kept_take_a_bounded_number_of_bytes(letters: int, items: int) -> None:
    rows = {f"i{item}": [f"<a_{item}>", "<b>"] for item in range(items)}
    catalog = catalog_of(rows, titles={f"i{item}": f"{item}🎬" + "x" * letters for item in range(items)} if letters else {})
    texts = ItemTexts(catalog)
    tracemalloc.start()
    for item in range(items):
        assert texts.title(item) == (f"{item}🎬" + "x" * letters if letters else None)
        assert texts.identifier(item) == f"<a_{item}><b>"
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 17 * 2**20


def test_texts_of_usual_length_are_kept() -> None:
    rows = {f"i{item}": [f"<a_{item}>", "<b>"] for item in range(2000)}
    texts = ItemTexts(catalog_of(rows, titles={f"i{item}": f"The {item}th of many titles of usual length" for item in range(2000)}))
    for _ in range(2):
        for item in range(2000):
            texts.title(item)
            texts.identifier(item)
    assert texts.title.cache_info().misses == texts.identifier.cache_info().misses == 2000
