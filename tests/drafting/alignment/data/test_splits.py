"""Splits and parquet: by hand, that nobody is asked about their own past, and the sentences for what is wrong."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafting.alignment.data.interactions import Interactions, by_user
from drafting.alignment.data.loading import load_split
from drafting.alignment.data.splits import SplitRule, global_time, long_users
from drafting.catalog.builder import catalog_of
from drafting.errors import InteractionError
from tests.drafting.alignment.data.test_interactions import histories

CATALOG = catalog_of([(str(item), [f"<a_{item}>"]) for item in range(20)])


def events(*rows: tuple[str, int, float]) -> Interactions:
    users = tuple(dict.fromkeys(user for user, _, _ in rows))
    columns = zip(*((users.index(user), item, time) for user, item, time in rows), strict=True)
    places, items, times = (np.array(column) for column in columns)
    return by_user(users, places, items.astype(np.int32), times.astype(np.float64))


def test_the_global_split_cuts_all_users_at_the_same_moments() -> None:
    split = global_time(events(*(("ab"[time % 2], time, float(time)) for time in range(10))))
    assert histories(split.train) == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert histories(split.valid) == [[8], []]
    assert histories(split.test) == [[], [9]]


def test_no_one_is_asked_about_their_own_past() -> None:
    rng = np.random.default_rng(0)
    rows = [(str(rng.integers(9)), int(rng.integers(20)), float(rng.integers(5))) for _ in range(200)]
    whole = events(*rows)
    for rule in (SplitRule("global-time"), SplitRule("leave-one-out")):
        split = rule(whole)
        assert histories(split.train.followed_by(split.valid).followed_by(split.test)) == histories(whole)
    split = global_time(whole)
    assert (len(split.train), len(split.valid), len(split.test)) == (160, 20, 20)


def test_short_users_are_left_out_whole() -> None:
    kept = long_users(events(("a", 1, 0), ("b", 2, 0), ("b", 3, 1), ("c", 4, 0), ("d", 5, 0), ("d", 6, 3)), 2)
    assert kept.users == ("b", "d")
    assert histories(kept) == [[2, 3], [5, 6]]
    assert kept.timestamps is not None
    assert kept.timestamps.tolist() == [0, 1, 0, 3]


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (("by-moon", 1), "There is no split 'by-moon': choose leave-one-out or global-time"),
        (("global-time", 0), "min_items must be at least 1"),
        (("global-time", 9), "No user has 9 interactions: lower min_items"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: tuple[str, int], sentence: str) -> None:
    with pytest.raises(InteractionError, match=sentence):
        SplitRule(*rule)(events(("a", 1, 0.0)))


def test_a_split_by_time_needs_times() -> None:
    with pytest.raises(InteractionError, match="needs a timestamp with every interaction"):
        global_time(Interactions(("a",), np.array([0, 1]), np.array([3], np.int32)))


def write_parquet(folder: Path, **columns: list[object]) -> None:
    # Two row groups, so that the names of the first must be known in the second.
    pq.write_table(pa.table(columns), folder / "interactions.parquet", row_group_size=4)


@pytest.mark.parametrize("kind", ["global-time", "leave-one-out"])
def test_parquet_is_read_as_jsonl_is(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(1)
    rows = [{"user": f"u{rng.integers(4)}", "item": int(rng.integers(20)), "timestamp": float(rng.integers(6))} for _ in range(40)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "interactions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_parquet(tmp_path / "b", **{name: [row[name] for row in rows] for name in rows[0]})
    first, second = (load_split(tmp_path / name, CATALOG, SplitRule(kind, min_items=3)) for name in "ab")
    for one, other in zip((first.train, first.valid, first.test), (second.train, second.valid, second.test), strict=True):
        assert one.users == other.users
        assert histories(one) == histories(other)


def test_nanoseconds_of_parquet_are_read_as_those_of_jsonl_are(tmp_path: Path) -> None:
    """As pandas writes dates that were made whole numbers; Arrow refuses to make floats of them unless it is told so."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    times = [1_700_000_000_000_000_000 + second * 10**9 for second in (3, 1, 2)]
    lines = [json.dumps({"user": "u", "item": item, "timestamp": time}) + "\n" for item, time in enumerate(times)]
    (tmp_path / "a" / "interactions.jsonl").write_text("".join(lines))
    write_parquet(tmp_path / "b", user=["u"] * 3, item=[0, 1, 2], timestamp=times)
    for name in "ab":
        split = load_split(tmp_path / name, CATALOG, SplitRule("global-time"))
        assert histories(split.train.followed_by(split.valid).followed_by(split.test)) == [[1, 2, 0]]
        assert split.train.timestamps is not None
        assert split.train.timestamps.tolist() == sorted(map(float, times))[: len(split.train)]


def test_floats_of_parquet_name_the_users_and_items_that_integers_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    users, items, times = [10**12, 7, 10**12, 7, 7, 10**12], [3, 1, 4, 1, 5, 9], [0, 1, 2, 3, 4, 5]
    write_parquet(tmp_path / "a", user=users, item=items, timestamp=times)
    write_parquet(tmp_path / "b", user=[float(user) for user in users], item=[float(item) for item in items], timestamp=times)
    first, second = (load_split(tmp_path / name, CATALOG) for name in "ab")
    assert first.train.users == second.train.users == ("1000000000000", "7")
    assert histories(first.test) == histories(second.test)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"user": [1], "item": [2]}, "has no column 'timestamp': it needs user, item, timestamp"),
        ({"user": [1], "item": [99], "timestamp": [0]}, "names item '99', but the catalog has no such item"),
        ({"user": [1], "item": [None], "timestamp": [0]}, "has interactions without a user, an item or a timestamp"),
        ({"user": [1], "item": ["0"], "timestamp": [float("nan")]}, "has interactions without a user, an item or a timestamp"),
        ({"user": [1, 2], "item": ["0", "0"], "timestamp": [5, None]}, "has interactions without a user, an item or a timestamp"),
        ({"user": [1, 2], "item": ["0", "0"], "timestamp": [datetime(2024, 5, 6), None]}, "without a user, an item or a timestamp"),
        ({"user": [1], "item": [2], "timestamp": ["2024-05-06"]}, "type string that are neither numbers nor .*: `atspeed prepare` makes"),
        ({"user": [1], "item": [2], "timestamp": [{"at": 1}]}, "The column timestamp of .* holds values of type struct"),
        ({"user": [1.5], "item": [2], "timestamp": [0]}, "has 1.5 in its column user, which is not a whole number"),
        ({"user": [1], "item": [True], "timestamp": [0]}, "The column item of .* holds values of type bool"),
    ],
)
def test_bad_parquet_is_said(tmp_path: Path, columns: dict[str, list[object]], sentence: str) -> None:
    write_parquet(tmp_path, **columns)
    with pytest.raises(InteractionError, match=sentence):
        load_split(tmp_path, CATALOG)


def test_a_file_that_is_no_parquet_is_said(tmp_path: Path) -> None:
    (tmp_path / "interactions.parquet").write_text("user,item\n")
    with pytest.raises(InteractionError, match=r"interactions\.parquet cannot be read"):
        load_split(tmp_path, CATALOG)


def test_two_forms_of_data_are_one_too_many(tmp_path: Path) -> None:
    for name in ("interactions.jsonl", "interactions.parquet"):
        (tmp_path / name).touch()
    with pytest.raises(InteractionError, match="holds both"):
        load_split(tmp_path, CATALOG)
