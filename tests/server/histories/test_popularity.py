"""Popularity counts users, the recent ones first, and a file is read as it was meant or refused."""

import random
from pathlib import Path

import pytest

from server.histories import Event
from server.histories.popularity import MOST_ITEMS, Popularity


@pytest.mark.parametrize("seed", range(20))
def test_items_are_ordered_by_recent_users_then_by_earlier_ones_then_by_name(seed: int):
    rng = random.Random(seed)
    histories = [[Event(rng.choice("abcdefgh"), float(rng.randrange(20))) for _ in range(rng.randrange(9))] for _ in range(12)]
    found = Popularity.of_histories(histories, since=10.0)

    def users(item: str, *, is_recent: bool) -> int:
        met = [{event.timestamp >= 10.0 for event in events if event.item_id == item} for events in histories]
        return sum(True in times if is_recent else times == {False} for times in met)

    names = {event.item_id for events in histories for event in events}
    assert list(found.item_ids) == sorted(names, key=lambda item: (-users(item, is_recent=True), -users(item, is_recent=False), item))
    assert [int(weight) for weight in found.weights] == [users(item, is_recent=True) for item in found.item_ids]
    assert all(weight > 0 for weight in found.weights)


def test_the_most_popular_are_kept():
    histories = [[Event(f"{number:05}", 1.0) for number in range(MOST_ITEMS + 50)], [Event("00020", 1.0), Event("10040", 1.0)]]
    found = Popularity.of_histories(histories, since=0.0)
    assert len(found.item_ids) == MOST_ITEMS
    assert found.item_ids[:3] == ("00020", "10040", "00000")
    assert found.item_ids[-1] == "09998"


def test_a_file_is_ordered_by_count_or_by_line(tmp_path: Path):
    path = tmp_path / "popular.jsonl"
    path.write_text('{"item_id": "a", "count": 3}\n\n{"item_id": "b", "count": 5.5, "title": "B"}\n')
    assert Popularity.load(path) == Popularity(("b", "a"), (5.5, 3.0))
    path.write_text('{"item_id": "b"}\n{"item_id": "a"}\n')
    assert Popularity.load(path) == Popularity(("b", "a"), (2.0, 1.0))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("\n", "The list of popular items PATH is empty."),
        (
            '{"item_id": "a"}\n{"id": "b"}',
            "Line 2 of PATH is no item with an item_id and a count: Object missing required field `item_id`.",
        ),
        ('{"item_id": "a", "count": 0}', "Line 1 of PATH is no item with an item_id and a count: count must be a positive number."),
        ('{"item_id": "a"}\n{"item_id": "a"}', "Line 2 of PATH names the item 'a' again."),
        (
            '{"item_id": "caf\udce9"}',
            "Line 1 of PATH is no item with an item_id and a count: 'utf-8' codec can't decode byte 0xe9 in position 3: "
            "unexpected end of data.",
        ),
        pytest.param(
            '{"item_id": "a", "tags": ' + "[" * 100_000,
            "Line 1 of PATH is no item with an item_id and a count: maximum recursion depth exceeded while deserializing an object.",
            id="nested too deeply",
        ),
        ("item_id,count", "Line 1 of PATH is no item with an item_id and a count: JSON is malformed: invalid character (byte 0)."),
    ],
)
def test_a_file_that_can_not_be_used_gets_a_sentence(tmp_path: Path, content: str, sentence: str):
    path = tmp_path / "popular.jsonl"
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(ValueError, match=r"^(Line|The list) ") as error:
        Popularity.load(path)
    assert str(error.value) == sentence.replace("PATH", str(path))


def test_a_file_that_is_not_there_gets_a_sentence(tmp_path: Path):
    with pytest.raises(ValueError, match=r"none\.jsonl can't be read: No such file or directory\.$"):
        Popularity.load(tmp_path / "none.jsonl")
