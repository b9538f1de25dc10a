"""Loaders and splits: the two forms of data, their traps, and the sentences for what is wrong."""

from pathlib import Path

import numpy as np
import pytest

from drafting.alignment.data.interactions import Interactions, leave_one_out
from drafting.alignment.data.loading import data_files, data_hashes, load_events, load_sequential, load_split
from drafting.alignment.data.splits import SplitRule
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.errors import InteractionError
from tests.interactions import interactions


@pytest.fixture
def catalog() -> Catalog:
    """Items "0" to "5"."""
    return catalog_of([(str(item), [f"<a_{item}>"]) for item in range(6)])


def histories(part: Interactions) -> list[list[int]]:
    return [part.history(user).tolist() for user in range(len(part.users))]


def write_split(folder: Path, train: str, valid: str, test: str) -> Path:
    for name, text in (("train", train), ("valid", valid), ("test", test)):
        (folder / f"sequential_{name}.txt").write_text(text)
    return folder


def test_sequential_numbers_count_from_one_and_a_line_may_hold_only_the_user(tmp_path: Path, catalog: Catalog) -> None:
    split = load_split(write_split(tmp_path, "1 1 6 2\n2 3\n", "1\n2 4\n", "1 5\n2\n"), catalog)
    assert split.train.users == ("1", "2")
    assert [catalog.item_ids[item] for item in split.train.history(0)] == ["0", "5", "1"]
    assert histories(split.train) == [[0, 5, 1], [2]]
    assert histories(split.valid) == [[], [3]]
    assert histories(split.test) == [[4], []]


def test_the_first_item_is_number_one_and_zero_is_no_item(tmp_path: Path, catalog: Catalog) -> None:
    path = tmp_path / "sequential_train.txt"
    path.write_text("1 0\n")
    with pytest.raises(InteractionError, match="item number 0, but these files count items from 1"):
        load_sequential(path, catalog)
    path.write_text("1 7\n")
    with pytest.raises(InteractionError, match="item number 7, which is item '6'"):
        load_sequential(path, catalog)


def test_items_are_looked_up_by_name_not_by_position(tmp_path: Path) -> None:
    shuffled = catalog_of([(name, [f"<a_{name}>"]) for name in ("2", "0", "1")])
    path = tmp_path / "sequential_train.txt"
    path.write_text("1 1 2 3\n")
    assert load_sequential(path, shuffled).items.tolist() == [1, 2, 0]


@pytest.mark.parametrize(("text", "line"), [("1 2\n2 x\n", 2), ("one 2\n", 1), ("1 2.5\n", 1), (f"1 {2**63}\n", 1)])
def test_a_line_that_is_not_numbers_is_named(tmp_path: Path, catalog: Catalog, text: str, line: int) -> None:
    path = tmp_path / "sequential_train.txt"
    path.write_text(text)
    with pytest.raises(InteractionError, match=f"Line {line} of .* should be numbers"):
        load_sequential(path, catalog)


def test_files_of_a_split_must_name_the_same_users(tmp_path: Path, catalog: Catalog) -> None:
    with pytest.raises(InteractionError, match="lists other users"):
        load_split(write_split(tmp_path, "1 1\n2 2\n", "2 1\n1 2\n", "1\n2\n"), catalog)


def test_a_user_has_one_line(tmp_path: Path, catalog: Catalog) -> None:
    """Else a user would be two, of whom a store of histories would keep one."""
    with pytest.raises(InteractionError, match=r"sequential_train\.txt lists user 2 twice: all items of a user stand in one line"):
        load_split(write_split(tmp_path, "1 1\n2 2\n02 3\n", "1\n2\n2\n", "1\n2\n2\n"), catalog)


def test_a_directory_without_data_says_what_it_needs(tmp_path: Path, catalog: Catalog) -> None:
    with pytest.raises(InteractionError, match=r"sequential_train\.txt.*interactions\.jsonl.*`atspeed prepare` makes such a directory"):
        load_split(tmp_path, catalog)


def test_events_are_put_in_order_of_time_and_ties_stay_as_they_came(tmp_path: Path, catalog: Catalog) -> None:
    path = tmp_path / "interactions.jsonl"
    path.write_text(
        '{"user": "b", "item": 3, "timestamp": 20}\n'
        '{"user": 7, "item": "1", "timestamp": 5}\n\n'
        '{"user": "b", "item": "4", "timestamp": 10.5}\n'
        '{"user": "b", "item": "0", "timestamp": 20}\n'
    )
    loaded = load_events(path, catalog)
    assert loaded.users == ("b", "7")
    assert histories(loaded) == [[4, 3, 0], [1]]
    assert loaded.timestamps is not None
    assert loaded.timestamps.tolist() == [10.5, 20, 20, 5]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"user": "b", "item": "9", "timestamp": 1}', "Line 1 of .* names item '9', but the catalog has no such item"),
        ('{"user": "b", "item": "1"}', "Line 1 of .* is not an interaction.*timestamp"),
        ("user,item", "Line 1 of .* is not an interaction"),
        ('{"user": "caf\udce9", "item": "1", "timestamp": 1}', "Line 1 of .* is not an interaction: .*can't decode"),
        (f'{{"user": "b", "item": "1", "timestamp": 1, "more": {"[" * 9999}', "Line 1 of .* is not an interaction: .*recursion"),
    ],
)
def test_a_bad_event_is_named(tmp_path: Path, catalog: Catalog, line: str, sentence: str) -> None:
    path = tmp_path / "interactions.jsonl"
    path.write_text(line + "\n", errors="surrogateescape")
    with pytest.raises(InteractionError, match=sentence):
        load_events(path, catalog)


def test_leave_one_out_by_hand() -> None:
    split = leave_one_out(interactions([1, 2, 3, 4], [5, 0], [], [3, 2, 1]))
    assert histories(split.train) == [[1, 2], [5, 0], [], [3]]
    assert histories(split.valid) == [[3], [], [], [2]]
    assert histories(split.test) == [[4], [], [], [1]]


def test_followed_by_joins_user_by_user() -> None:
    joined = interactions([1, 2], [], [3]).followed_by(interactions([4], [5], []))
    assert histories(joined) == [[1, 2, 4], [5], [3]]


def test_a_split_can_be_put_together_again() -> None:
    rng = np.random.default_rng(0)
    whole = interactions(*[rng.integers(6, size=rng.integers(0, 9)).tolist() for _ in range(50)])
    split = leave_one_out(whole)
    assert histories(split.train.followed_by(split.valid).followed_by(split.test)) == histories(whole)


def test_hashes_change_with_the_data(tmp_path: Path) -> None:
    write_split(tmp_path, "1 1\n", "1\n", "1\n")
    before = data_hashes(tmp_path)
    (tmp_path / "sequential_test.txt").write_text("1 2\n")
    after = data_hashes(tmp_path)
    assert set(before) == {"sequential_train.txt", "sequential_valid.txt", "sequential_test.txt"}
    assert [name for name in before if before[name] != after[name]] == ["sequential_test.txt"]


def test_the_papers_data(beauty: Catalog, beauty_dir: Path) -> None:
    split = load_split(beauty_dir, beauty)
    assert len(split.train.users) == len(split.valid.users) == len(split.test.users) == 19_383
    assert (len(split.train), len(split.valid), len(split.test)) == (122_241, 9_316, 7_313)
    assert int((split.test.lengths > 0).sum()) == 3_553
    # The file's first line reads "1 1955 …": item number 1955 is the index's "1954".
    assert beauty.item_ids[split.train.history(0)[0]] == "1954"
    seen = np.unique(np.concatenate([part.items for part in (split.train, split.valid, split.test)]))
    assert len(seen) <= len(beauty) == 12_035


def test_lists_of_lc_rec_and_letter(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "Beauty.inter.json").write_text('{"u": [4, 0, 5, 1], "v": ["3"], "w": []}')
    split = load_split(tmp_path, catalog)
    assert split.train.users == ("u", "v", "w")
    assert histories(split.train) == [[4, 0], [3], []]
    assert (histories(split.valid), histories(split.test)) == ([[5], [], []], [[1], [], []])
    assert set(data_hashes(tmp_path)) == {"Beauty.inter.json"}
    with pytest.raises(InteractionError, match="needs a timestamp with every interaction"):
        load_split(tmp_path, catalog, SplitRule("global-time"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"u": [0], "u": [1]}', "with every user once."),
        ('[["u", [0]]]', "with every user once."),
        ('{"u": [0.5]}', "are not of the form"),
        ('{"u": {"a": 1}}', "are not of the form"),
        ('{"u": 3}', "are not of the form"),
        ("[1]", "are not of the form"),
        ('{"u": [0]', "are not JSON"),
        ('{"u": [0, 6]}', "names item '6', but the catalog has no such item."),
    ],
)
def test_lists_that_are_refused(tmp_path: Path, catalog: Catalog, text: str, sentence: str) -> None:
    (tmp_path / "Beauty.inter.json").write_text(text)
    with pytest.raises(InteractionError, match=sentence):
        load_split(tmp_path, catalog)


def test_lists_beside_the_interactions_that_were_made_of_them_are_left_alone(tmp_path: Path) -> None:
    for name in ("A.inter.json", "B.inter.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InteractionError, match=r"holds both A\.inter\.json and B\.inter\.json: remove the one"):
        data_files(tmp_path)
    (tmp_path / "interactions.jsonl").write_text("")
    assert data_files(tmp_path) == (tmp_path / "interactions.jsonl",)
    (tmp_path / "interactions.parquet").write_text("")
    with pytest.raises(InteractionError, match=r"holds both interactions\.jsonl and interactions\.parquet: remove the one"):
        data_files(tmp_path)
