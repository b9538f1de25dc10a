"""What data says beside items and times: kinds, values, attributes, contexts and profiles, in both forms, and labels of one kind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafting.alignment.data.interactions import Interactions
from drafting.alignment.data.loading import data_hashes, load_split
from drafting.alignment.data.record import prepared
from drafting.alignment.data.splits import SplitRule
from drafting.alignment.data.windows import newest_windows, next_windows, prefix_windows
from drafting.catalog.builder import catalog_of
from drafting.errors import InteractionError
from drafting.prompts.user_state import UserEvent, UserState
from tests.drafting.alignment.data.test_interactions import histories

CATALOG = catalog_of([(str(item), [f"<a_{item}>"]) for item in range(20)])
EVENTS: list[dict[str, Any]] = [
    {"user": "u", "item": "2", "timestamp": 30, "kind": "buy", "context": {"query": "war films", "genres": ["war"]}},
    {"user": "u", "item": "1", "timestamp": 20, "kind": "watch", "value": 5, "attributes": {"device": "tv", "done": True}},
    {"user": "v", "item": "3", "timestamp": 5},
    {"user": "u", "item": "4", "timestamp": 10, "kind": "watch", "attributes": {"device": "phone", "stars": 5}},
    {"user": "v", "item": "5", "timestamp": 6, "attributes": {"stars": 4}},
]
PROFILES: list[dict[str, Any]] = [
    {"user": "u", "country": "DE", "age": 34, "genres": ["drama", "war"]},
    {"user": 7, "country": None, "subscriber": True},
]
ASKED = UserState(
    [
        UserEvent(4, "watch", None, 10.0, {"device": "phone", "stars": 5}),
        UserEvent(1, "watch", 5.0, 20.0, {"device": "tv", "done": True}),
    ],
    profile={"country": "DE", "age": 34, "genres": ["drama", "war"]},
    context={"query": "war films", "genres": ["war"]},
    user_id="u",
)


def write_lines(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_table(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Attributes as columns of their own and contexts as a column of objects; names of users as texts."""
    flat = [
        {**row, "user": str(row["user"]), **{f"attributes.{name}": value for name, value in row.get("attributes", {}).items()}}
        for row in rows
    ]
    names = dict.fromkeys(column for row in flat for column in row if column != "attributes")
    pq.write_table(pa.table({column: [row.get(column) for row in flat] for column in names}), folder / f"{name}.parquet")


def test_both_forms_give_the_states_of_their_users(tmp_path: Path) -> None:
    for write in (write_lines, write_table):
        folder = tmp_path / write.__name__
        folder.mkdir()
        write(folder, "interactions", EVENTS)
        write(folder, "profiles", PROFILES)
        train = load_split(folder, CATALOG, SplitRule("leave-one-out", 2)).train
        joined = load_split(folder, CATALOG)
        whole = joined.train.followed_by(joined.valid).followed_by(joined.test)
        assert whole.state(whole.users.index("u"), whole.offsets[whole.users.index("u")] + np.arange(2), asked(whole)) == ASKED
        other = train.users.index("v")
        assert train.state(other, np.arange(train.offsets[other], train.offsets[other + 1])) == UserState(
            [UserEvent(3, time=5.0), UserEvent(5, time=6.0, attributes={"stars": 4})], user_id="v"
        )
        assert whole.profiles is not None
        assert whole.profiles.of("7") == {"subscriber": True}
        assert set(data_hashes(folder)) == {path.name for path in folder.iterdir()}


def asked(whole: Interactions) -> int:
    return int(whole.offsets[whole.users.index("u") + 1] - 1)


def test_numbers_keep_their_types_and_missing_ones_are_absent(tmp_path: Path) -> None:
    table = {
        "user": ["a"] * 4,
        "item": [1, 2, 3, 4],
        "timestamp": pa.array([1_700_000_000_500 + each for each in range(4)], pa.timestamp("ms")),
        "kind": pa.array(["see", "buy", None, "see"]).dictionary_encode(),
        "value": [1, 2, None, 4],
        "attributes.price": [1.0, float("nan"), None, 2.5],
        "attributes.count": [1, 2, None, 1],
    }
    pq.write_table(pa.table(table), tmp_path / "interactions.parquet")
    data = load_split(tmp_path, CATALOG).train
    events = data.state(0, np.arange(2)).events
    assert events[0] == UserEvent(1, "see", 1.0, 1_700_000_000.5, {"price": 1.0, "count": 1})
    assert json.dumps(dict(events[0].attributes)) == '{"price": 1.0, "count": 1}'
    assert events[1].attributes == {"count": 2}


ONE = {"user": 1, "item": 1, "timestamp": 1}


@pytest.mark.parametrize(
    ("name", "row", "sentence"),
    [
        ("interactions", ONE | {"attributes": {"a": {"b": 1}}}, r"Line 2 of .* is not an interaction: .*\$\.attributes"),
        ("interactions", ONE | {"attributes": {"a": [1]}}, r"Line 2 of .* is not an interaction: .*\$\.attributes"),
        ("interactions", ONE | {"kind": 3}, r"Line 2 of .* is not an interaction: .*\$\.kind"),
        ("profiles", {"user": 1, "a": {"b": 1}}, "Line 2 of .* is not a profile: "),
        ("profiles", {"age": 1}, "Line 2 of .* is not a profile: it needs a text or a whole number as its 'user'"),
        ("profiles", {"user": 0}, "Line 2 of .* is not a profile: the user '0' has two profiles"),
    ],
)
def test_what_can_not_be_used_is_named(tmp_path: Path, name: str, row: dict[str, Any], sentence: str) -> None:
    write_lines(tmp_path, "interactions", [ONE])
    write_lines(tmp_path, name, [{**ONE, "user": 0} if name == "interactions" else {"user": 0}, row])
    with pytest.raises(InteractionError, match=sentence):
        load_split(tmp_path, CATALOG)


def test_a_profile_and_a_record_that_are_no_utf_8_are_named(tmp_path: Path) -> None:
    write_lines(tmp_path, "interactions", [ONE])
    (tmp_path / "profiles.jsonl").write_bytes(b'{"user": 1, "city": "K\xf6ln"}\n')
    with pytest.raises(InteractionError, match=r"Line 1 of .* is not a profile: .*can't decode"):
        load_split(tmp_path, CATALOG)
    (tmp_path / "prepare.json").write_bytes(b'{"split": "\xff"}')
    with pytest.raises(InteractionError, match=r"prepare.json cannot be read: .* Prepare the data again, or remove the file\."):
        prepared(tmp_path)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"item": pa.array([b"\xff"]).view(pa.string())}, "cannot be read: it has texts that are not UTF-8"),
        ({"attributes.day": pa.array([0], pa.date32())}, r"attributes\.day is a text, a number, a boolean or a list of these, got a date"),
        ({"value": ["much"]}, "The column value of .* holds values of type string"),
        ({"context": [{"where": {"city": "Ulm"}}]}, r"context\.where is a text, a number, a boolean or a list of these, got a dict"),
    ],
)
def test_columns_that_can_not_be_used_are_named(tmp_path: Path, table: dict[str, Any], sentence: str) -> None:
    pq.write_table(pa.table({name: [value] for name, value in ONE.items()} | table), tmp_path / "interactions.parquet")
    with pytest.raises(InteractionError, match=sentence):
        load_split(tmp_path, CATALOG)


def test_two_files_of_profiles_are_one_too_many(tmp_path: Path) -> None:
    for write in (write_lines, write_table):
        write(tmp_path, "profiles", PROFILES)
    write_lines(tmp_path, "interactions", [ONE])
    with pytest.raises(InteractionError, match=r"holds both profiles\.jsonl and profiles\.parquet: remove the one"):
        load_split(tmp_path, CATALOG)


# Kinds of a user's events by their first letters; the items count up from 0.
SEEN_AND_BOUGHT = ["sbsbsbs", "bb", "sbb", "sss", "b"]


@pytest.fixture
def shop(tmp_path: Path) -> Callable[[SplitRule], Any]:
    rows = [
        {"user": user, "item": item, "timestamp": item, "kind": {"s": "see", "b": "buy"}[letter]}
        for user, letters in enumerate(SEEN_AND_BOUGHT)
        for item, letter in enumerate(letters)
    ]
    write_lines(tmp_path, "interactions", rows)
    return lambda rule: load_split(tmp_path, CATALOG, rule)


def test_the_last_labels_are_held_out_and_what_follows_them_is_never_trained_on(shop: Callable[[SplitRule], Any]) -> None:
    split = shop(SplitRule(label_kind="buy"))
    assert histories(split.train) == [[0, 1, 2], [0, 1], [0], [0, 1, 2], [0]]
    assert histories(split.valid) == [[3, 4], [], [1], [], []]
    assert histories(split.test) == [[5], [], [2], [], []]
    windows = prefix_windows(split.train, 9)
    assert [(owner, last - split.train.offsets[owner]) for owner, last in zip(windows.owners, windows.last, strict=True)] == [
        (0, 1),
        (1, 1),
    ]
    assert newest_windows(split.train, 9).last.tolist() == windows.last.tolist()
    joined, ahead = next_windows(split.train.followed_by(split.valid), split.test, 9)
    assert [joined.items[first : last + 1].tolist() for first, last in zip(ahead.first, ahead.last, strict=True)] == [
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2],
    ]


def test_labels_behind_other_events_of_a_part_are_asked_for_after_these(shop: Callable[[SplitRule], Any]) -> None:
    split = shop(SplitRule("global-time", label_kind="buy"))
    whole = split.train.followed_by(split.valid).followed_by(split.test)
    joined, ahead = next_windows(split.train, split.valid, 9)
    for owner, last in zip(ahead.owners.tolist(), ahead.last.tolist(), strict=True):
        position = last - joined.offsets[owner]
        assert position >= split.train.lengths[owner]
        assert SEEN_AND_BOUGHT[owner][position] == "b"
        assert "b" not in SEEN_AND_BOUGHT[owner][split.train.lengths[owner] : position]
    assert histories(whole) == [list(range(len(letters))) for letters in SEEN_AND_BOUGHT]


def test_a_kind_that_nothing_is_of_is_refused(shop: Callable[[SplitRule], Any], tmp_path: Path) -> None:
    with pytest.raises(InteractionError, match=r"No interaction is of the kind 'like': those of the data are 'buy', 'see'\."):
        shop(SplitRule(label_kind="like"))
    write_lines(tmp_path, "interactions", [ONE])
    with pytest.raises(InteractionError, match=r"No interaction is of the kind 'buy': the data says no kinds at all\."):
        load_split(tmp_path, CATALOG, SplitRule(label_kind="buy"))
