"""A search against Python's own texts, item by item."""

import random

import pytest

from drafting.catalog import text_search
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.catalog.text_search import find_items

LETTERS = 'aAbB é É жЖ"\\1-/🎬'


def random_text(rng: random.Random, most: int) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randrange(most)))


def random_catalog(rng: random.Random) -> Catalog:
    names = list(dict.fromkeys(random_text(rng, 6) or "x" for _ in range(60)))
    titles = [rng.choice([random_text(rng, 9), random_text(rng, 9), None, 7, ["a"]]) for _ in names]
    return catalog_of({name: ["<a_0>", f"<b_{n}>"] for n, name in enumerate(names)}, attributes={"title": titles})


def kind(catalog: Catalog, item: int, text: str) -> int | None:
    """Upper and lower case of each of the letters are one character each, so texts may be compared in lower case."""
    name, title, wanted = catalog.item_ids[item], (catalog.title(item) or "").lower(), text.lower()
    if name == text:
        return 0
    if name.lower().startswith(wanted):
        return 1
    if not title or wanted not in title:
        return None
    places = [place for place in range(len(title)) if title.startswith(wanted, place)]
    if 0 in places:
        return 2
    words = [place for place in places if not (title[place - 1].isalnum() or title[place - 1] > "\x7f")]
    return 3 if words else 4


@pytest.mark.parametrize("seed", range(60))
def test_a_search_finds_what_python_finds_in_the_order_of_how_good_it_is(seed: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_search, "_PIECE", 64)
    rng = random.Random(seed)
    catalog = random_catalog(rng)
    for _ in range(20):
        text = random_text(rng, 4) or rng.choice(catalog.item_ids)
        kinds = {item: found for item in range(len(catalog)) if (found := kind(catalog, item, text)) is not None}
        assert find_items(catalog, text).tolist() == sorted(kinds, key=lambda item: (kinds[item], item)), text


def test_a_catalog_without_titles_is_searched_by_id():
    catalog = catalog_of({name: [f"<a_{n}>"] for n, name in enumerate(["b", "ab", "Abc", "abc"])})
    assert find_items(catalog, "ab").tolist() == [1, 2, 3]
    assert find_items(catalog, "abc").tolist() == [3, 2]
    assert find_items(catalog, "abcd").tolist() == []
