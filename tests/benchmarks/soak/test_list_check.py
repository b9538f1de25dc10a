"""The check of lists, on lists that were invented in every way."""

from typing import Any

import pytest

from benchmarks.soak.list_check import list_complaint

ITEMS = {f"item-{number}" for number in range(8)}
REQUEST = {"k": 2, "exclude": ["item-1"]}


def answer(*items: tuple[str, int, float | None], verification: str = "strict") -> dict[str, Any]:
    lines = [{"item_id": item, "rank": rank, "score": score} for item, rank, score in items]
    return {"catalog_version": "v1", "verification": verification, "items": lines}


def test_a_list_as_it_should_be_passes():
    assert list_complaint(REQUEST, answer(("item-4", 1, -1.0), ("item-0", 1, -1.0), ("item-2", 2, -2.5)), ITEMS, None) is None
    assert list_complaint(REQUEST, answer(("item-4", 1, -1.0), ("item-0", 2, -1.5)), ITEMS, 0) is None
    assert list_complaint(REQUEST, answer(("item-4", 1, -2.0), ("item-0", 2, -1.5), verification="gumbel"), None, None) is None


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (answer(("item-9", 1, -1.0), ("item-0", 2, -1.5)), "has item-9, which that version does not have"),
        (answer(("item-0", 1, -1.0), ("item-0", 2, -1.5)), "has an item twice"),
        (answer(("item-0", 1, -1.0), ("item-2", 2, -1.5)), "has item-2, which the filter for group 0 does not let through"),
        (answer(("item-1", 1, -1.0), ("item-0", 2, -1.5)), "group 0"),
        (answer(("item-0", 1, -1.0)), r"has the ranks [1] for k = 2"),
        (answer(("item-0", 2, -1.0), ("item-4", 1, -1.5)), r"has the ranks [2, 1] for k = 2"),
        (answer(("item-0", 1, None), ("item-4", 2, -1.5)), "has scores that are no numbers"),
        (answer(("item-0", 1, float("nan")), ("item-4", 2, -1.5)), "has scores that are no numbers"),
        (answer(("item-0", 1, -2.0), ("item-4", 2, -1.5)), "is not in the order of its scores"),
    ],
)
def test_an_invented_list_is_found(wrong: dict[str, Any], complaint: str):
    told = list_complaint(REQUEST, wrong, ITEMS, 0)
    assert told is not None
    assert complaint in told


def test_an_excluded_item_is_found():
    told = list_complaint(REQUEST, answer(("item-1", 1, -1.0), ("item-0", 2, -1.5)), ITEMS, None)
    assert told == "A list of version v1 has item-1, which the request excludes."
