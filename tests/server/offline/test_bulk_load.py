"""Bulk loads: whatever was stored before, interrupted or repeated, a store ends with each user's newest events, once each."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from drafting.alignment.data.columns import Column
from drafting.alignment.data.profiles import load_profiles as load_file
from drafting.preparation.events import Events
from drafting.prompts.user_state import Value
from server.commands.app import app
from server.commands.histories import _profiles
from server.errors import HistoryDamaged
from server.histories import Event, HistoryStore, open_history_store
from server.offline import bulk_load
from server.offline.bulk_load import Imported, histories_of, load_histories, load_profiles
from server.try_again import HistoryUnavailable

rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 9), st.sampled_from(["buy", None])), min_size=1, max_size=30)


def events_of(found: list[tuple[int, int, int, str | None]]) -> Events:
    users, items, times = (np.array([row[place] for row in found]) for place in range(3))
    kinds = Column(np.array([-1 if row[3] is None else 0 for row in found], np.int32), ("buy",))
    names = [f"u{user}" for user in range(4)], [f"i{item}" for item in range(5)]
    return Events(*names, users.astype(np.int32), items.astype(np.int32), times.astype(float), details={"kind": kinds})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[HistoryStore]:
    opened = open_history_store(f"sqlite:///{tmp_path}/h.db", max_events=5, timeout_seconds=10)
    yield opened
    await opened.close()


@given(rows, st.integers(1, 6))
def test_of_each_user_the_newest_events_come_in_order(found: list[tuple[int, int, int, str | None]], most: int) -> None:
    told = dict(histories_of(events_of(found), most))
    for user in range(4):
        mine = sorted((row for row in found if row[0] == user), key=lambda row: row[2])[-most:]
        shown = [(event.item_id, event.timestamp, event.kind) for event in told.get(f"u{user}", [])]
        assert shown == [(f"i{item}", float(time), kind) for _, item, time, kind in mine]
    assert list(told) == sorted(told)


@given(rows)
@settings(max_examples=20)
def test_ids_are_the_same_for_the_same_events_and_others_for_others(found: list[tuple[int, int, int, str | None]]) -> None:
    ids = [(user, event.event_id) for user, history in histories_of(events_of(found), 100) for event in history]
    assert len(set(ids)) == len({(f"u{row[0]}", *row[1:]) for row in found})
    assert ids == [(user, event.event_id) for user, history in histories_of(events_of(found), 100) for event in history]


async def test_a_load_can_be_repeated_and_interrupted(store: HistoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_load, "_EVENTS_AT_ONCE", 3)
    events = events_of([(user, step, step, None) for user in range(4) for step in range(5)])

    class Stopped(Exception):
        pass

    def stop(count: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        await load_histories(store, histories_of(events, 5), stop)
    counts: list[int] = []
    assert await load_histories(store, histories_of(events, 5), counts.append) == Imported(4, 20, 15)
    assert counts == [5, 5, 5, 5]
    assert await load_histories(store, histories_of(events, 5), counts.append) == Imported(4, 20, 0)
    for user in range(4):
        assert [event.item_id for event in await store.read(f"u{user}")] == [f"i{step}" for step in range(5)]


async def test_ids_that_clients_send_are_kept(store: HistoryStore) -> None:
    await store.append("u0", [Event("i1", 1.0, "click-1")])
    events = events_of([(0, 1, 1, None), (0, 2, 2, None)])
    ids = Column(np.array([0, 1], np.int32), ("click-1", 7))
    assert await load_histories(store, histories_of(events, 5, ids), lambda _: None) == Imported(1, 2, 1)
    assert [event.event_id for event in await store.read("u0")] == ["click-1", "7"]


async def test_a_store_that_is_away_is_waited_for_and_a_damaged_history_costs_its_user_alone(
    store: HistoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_many, failures = store.append_many, iter([True, False, True])

    async def failing(histories):
        if next(failures, False):
            raise HistoryUnavailable("away.")
        if "u1" in histories:
            raise HistoryDamaged("u1")
        return await append_many(histories)

    monkeypatch.setattr(store, "append_many", failing)
    events = events_of([(user, 0, 0, None) for user in range(3)])
    assert await load_histories(store, histories_of(events, 5), lambda _: None) == Imported(2, 3, 2, ("u1",))
    monkeypatch.setattr(bulk_load, "_PATIENCE_SECONDS", 0.0)
    failures = iter([True] * 9)
    with pytest.raises(HistoryUnavailable):
        await load_histories(store, histories_of(events, 5), lambda _: None)


async def test_a_damaged_user_costs_the_profiles_no_other(store: HistoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put_profiles, put_profile = store.put_profiles, store.put_profile

    async def failing(profiles):
        if "bob" in profiles:
            raise HistoryDamaged("bob")
        await put_profiles(profiles)

    async def failing_one(user, profile):
        if user == "bob":
            raise HistoryDamaged(user)
        await put_profile(user, profile)

    monkeypatch.setattr(store, "put_profiles", failing)
    monkeypatch.setattr(store, "put_profile", failing_one)
    monkeypatch.setattr(bulk_load, "_PROFILES_AT_ONCE", 2)
    profiles: dict[str, dict[str, Value]] = {name: {"likes": [name]} for name in ("ann", "bob", "cid")}
    counts: list[int] = []
    assert await load_profiles(store, profiles, counts.append) == (2, ("bob",))
    assert counts == [2, 1]
    assert [(await store.read_user(name)).profile for name in profiles] == [{"likes": ["ann"]}, None, {"likes": ["cid"]}]


def test_the_command_stores_all_but_what_belongs_to_a_damaged_user(tmp_path: Path, data: Path) -> None:
    (tmp_path / "all.jsonl").write_text("".join(f'{{"user": "{user}", "age": 30}}\n' for user in ("ann", "bob", "cid")))
    url, flags = f"sqlite:///{tmp_path}/h.db", ("--profiles", tmp_path / "all.jsonl")
    assert run("histories", "import", data, "--histories", url)[0] == 0
    with closing(sqlite3.connect(tmp_path / "h.db")) as file, file:
        file.execute("UPDATE histories SET history = x'00' WHERE user_id = 'ann'")
    status, output = run("histories", "import", data, "--histories", url, *flags)
    assert status == 1
    assert "and 2 profiles." in output
    assert "Of 1 users not all was stored, as what is stored of them is damaged: ann." in output
    assert [asyncio.run(stored(url, user))[1] for user in ("bob", "cid")] == [{"age": 30}] * 2


def test_users_of_a_file_that_is_not_there_are_given_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file that is made instead would have nobody who is kept longer."""
    monkeypatch.chdir(tmp_path)
    status, output = run("histories", "expire", "--histories", "sqlite:///h.db", "--history-ttl-seconds", 9)
    assert status == 1
    assert f"There is no history file {tmp_path / 'h.db'}: name the server's, as sqlite:///relative/path or sqlite:////" in output
    assert list(tmp_path.iterdir()) == []


def test_users_who_were_stored_for_ever_are_given_an_end(tmp_path: Path, data: Path) -> None:
    url = f"sqlite:///{tmp_path}/h.db"
    assert run("histories", "import", data, "--histories", url)[0] == 0
    flags = "--histories", url, "--history-ttl-seconds"
    for seconds, users in (("3000", "2"), ("4000", "0"), ("2000", "2")):
        status, output = run("histories", "expire", *flags, seconds)
        assert status == 0
        assert f"{users} users who would have been kept longer are forgotten in {int(seconds):,} s." in output
    file = tmp_path / "h.db"
    content = file.read_bytes()
    # The only page of the table.
    file.write_bytes(content[:4096] + bytes(4096) + content[8192:])
    status, output = run("histories", "expire", *flags, "1000")
    assert status == 1
    assert "2 users stay as they are, as pages of theirs or beside them are damaged: the same command may reach more." in output
    assert "memory:// ends with this command" in run("histories", "expire", "--histories", "memory://", "--history-ttl-seconds", "9")[1]


@pytest.mark.parametrize(
    ("profiles", "sentence"),
    [
        (
            '{"user": "ann", "age": 30}\n{"user": "zoe", "bio": "' + "x" * 2001 + '"}\n',
            "The profile of user 'zoe' can't be stored: it can't hold 'bio'",
        ),
        ('{"user": "' + "z" * 513 + '", "age": 30}\n', "has 513 characters, and from 1 to 512 are possible"),
        ('{"user": "", "age": 30}\n', "The user '' has 0 characters, and from 1 to 512 are possible"),
    ],
)
def test_profiles_are_checked_before_anything_is_stored(tmp_path: Path, data: Path, profiles: str, sentence: str) -> None:
    (tmp_path / "profiles.jsonl").write_text(profiles)
    flags = ("--histories", f"sqlite:///{tmp_path}/h.db", "--profiles", tmp_path / "profiles.jsonl")
    status, output = run("histories", "import", data, *flags)
    assert status == 1
    assert sentence in output
    assert not (tmp_path / "h.db").exists()


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    return result.exit_code, result.output


async def stored(url: str, user: str) -> tuple[list[tuple], dict | None]:
    store = open_history_store(url)
    try:
        known = await store.read_user(user)
    finally:
        await store.close()
    return [(event.item_id, event.timestamp, event.kind, event.value, dict(event.attributes)) for event in known.events], known.profile


async def ids(url: str, user: str) -> list[str]:
    store = open_history_store(url)
    try:
        return [event.event_id for event in await store.read(user)]
    finally:
        await store.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text(
        "user,item,time,event,stars,page\nann,a,1700000000,buy,5,3\nann,b,1700000001,view,,\nbob,a,1700000002,view,2,1\n"
    )
    (tmp_path / "users.jsonl").write_text('{"user": "ann", "age": 30}\n')
    status, output = run("prepare", tmp_path / "log.csv", "--users", tmp_path / "users.jsonl", "--keep", "page", "--out", tmp_path / "data")
    assert status == 0, output
    return tmp_path / "data"


def test_the_command_loads_a_data_directory_and_can_be_repeated(tmp_path: Path, data: Path) -> None:
    url = f"sqlite:///{tmp_path}/h.db"
    status, output = run("histories", "import", data, "--histories", url)
    assert status == 0, output
    assert "Sent 3 events of 2 users in" in output
    assert "3 were new, and 1 profiles." in output
    events, profile = asyncio.run(stored(url, "ann"))
    assert events == [("a", 1.7e9, "buy", 5.0, {"page": 3}), ("b", 1.7e9 + 1, "view", None, {})]
    assert profile == {"age": 30}
    assert "0 were new" in run("histories", "import", data, "--histories", url)[1]


def test_the_command_keeps_users_as_the_environment_of_the_server_says(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATSPEED_HISTORY_MAX_EVENTS", "1")
    monkeypatch.setenv("ATSPEED_HISTORY_TTL_SECONDS", "3000")
    url = f"sqlite:///{tmp_path}/h.db"
    status, output = run("histories", "import", data, "--histories", url)
    assert status == 0, output
    assert "Sent 2 events of 2 users in" in output
    assert [event[0] for event in asyncio.run(stored(url, "ann"))[0]] == ["b"]
    assert "0 users who would" in run("histories", "expire", "--histories", url, "--history-ttl-seconds", 4000)[1]


EVENTS = [
    {"user": "ann", "item": 7, "timestamp": 1.7e9, "kind": "buy", "value": 5, "attributes": {"price": 5, "device": "tv"}},
    {"user": "ann", "item": 8, "timestamp": 1.7e9 + 1, "attributes": {"price": 4.5, "gift": True}, "context": {"query": "war"}},
    {"user": "bob", "item": 7, "timestamp": 1.7e9 + 2, "kind": "view"},
]
ANN = [
    ("7", 1.7e9, "buy", 5.0, {"price": 5, "device": "tv"}),
    ("8", 1.7e9 + 1, None, None, {"price": 4.5, "gift": True}),
]


def as_columns(event: dict) -> dict:
    flat = {name: value for name, value in event.items() if name not in ("attributes", "context", "item")}
    return flat | {"item": str(event["item"])} | {f"attributes.{name}": value for name, value in event.get("attributes", {}).items()}


@pytest.mark.parametrize("named", [False, True], ids=["a directory", "its file"])
@pytest.mark.parametrize("form", ["jsonl", "objects", "columns"])
def test_the_command_stores_what_training_reads_from_a_data_directory(tmp_path: Path, form: str, named: bool) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "profiles.jsonl").write_text('{"user": "ann", "age": 30}\n')
    match form:
        case "jsonl":
            (folder / "interactions.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
        case "objects":
            pq.write_table(pa.Table.from_pylist(EVENTS), folder / "interactions.parquet")
        case "columns":
            names = dict.fromkeys(name for event in EVENTS for name in as_columns(event))
            rows = [as_columns(event) for event in EVENTS]
            pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), folder / "interactions.parquet")
    url = f"sqlite:///{tmp_path}/h.db"
    source = next(folder.glob("interactions.*")) if named else folder
    status, output = run("histories", "import", source, "--histories", url)
    assert status == 0, output
    events, profile = asyncio.run(stored(url, "ann"))
    assert events == ANN
    assert profile == (None if named else {"age": 30})
    assert asyncio.run(stored(url, "bob"))[0] == [("7", 1.7e9 + 2, "view", None, {})]


@pytest.mark.parametrize("named", [False, True], ids=["a directory", "its file"])
def test_the_command_stores_lists_of_items_in_their_order(tmp_path: Path, named: bool) -> None:
    """LC-Rec's, beside its other files; of lists that have grown, what is new is stored."""
    folder = tmp_path / "Games"
    folder.mkdir()
    (folder / "Games.item.json").write_text('{"4": {"title": "Chess"}}')
    file, url = folder / "Games.inter.json", f"sqlite:///{tmp_path}/h.db"
    for lists, new in (('{\n"7": [4, 0],\n"9": ["4"]}', 3), ('{"7": [4, 0, 5], "8": [], "9": ["4"]}', 1)):
        file.write_text(lists)
        status, output = run("histories", "import", file if named else folder, "--histories", url)
        assert status == 0, output
        assert f": {new} were new" in output
    assert [event[:2] for event in asyncio.run(stored(url, "7"))[0]] == [("4", 0.0), ("0", 1.0), ("5", 2.0)]
    assert [event[:2] for event in asyncio.run(stored(url, "9"))[0]] == [("4", 0.0)]


def test_the_command_stores_the_papers_files_as_training_numbers_their_items(tmp_path: Path) -> None:
    """Of each user the training part, then the others, beside the index of their items."""
    folder = tmp_path / "beauty"
    folder.mkdir()
    (folder / "beauty.index.json").write_text('{"0": ["<a_1>"], "4": ["<a_2>"], "5": ["<a_3>"]}')
    for part, lines in (("train", "1 5 1\n2 6\n"), ("valid", "1\n2 5\n"), ("test", "1 6\n2 1\n")):
        (folder / f"sequential_{part}.txt").write_text(lines)
    url = f"sqlite:///{tmp_path}/h.db"
    status, output = run("histories", "import", folder, "--histories", url)
    assert status == 0, output
    assert ": 6 were new" in output
    assert [event[:2] for event in asyncio.run(stored(url, "1"))[0]] == [("4", 0.0), ("0", 1.0), ("5", 2.0)]
    assert [event[:2] for event in asyncio.run(stored(url, "2"))[0]] == [("5", 0.0), ("4", 1.0), ("0", 2.0)]
    (folder / "sequential_test.txt").write_text("1 0\n2 1\n")
    status, output = run("histories", "import", folder, "--histories", url)
    assert status == 1
    assert "sequential_test.txt names item number 0, but these files count items from 1." in output


def test_ids_of_events_in_a_data_directory_are_attributes_or_columns_and_no_others_are_guessed(tmp_path: Path) -> None:
    lines = [{"user": "ann", "item": "a", "timestamp": 1.7e9, "id": "e1", "attributes": {"order": "o1"}}]
    (tmp_path / "interactions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for event_id, found in (("order", "o1"), ("attributes.order", "o1"), ("id", "e1")):
        url = f"sqlite:///{tmp_path}/{event_id}.db"
        status, output = run("histories", "import", tmp_path / "interactions.jsonl", "--histories", url, "--event-id", event_id)
        assert status == 0, output
        assert asyncio.run(ids(url, "ann")) == [found]
    url = f"sqlite:///{tmp_path}/none.db"
    status, output = run("histories", "import", tmp_path / "interactions.jsonl", "--histories", url, "--keep", "colour")
    assert status == 1
    assert "have no attribute 'colour': there are attributes.order." in output
    status, output = run("histories", "import", tmp_path / "interactions.jsonl", "--histories", url, "--keep", "attributes")
    assert status == 1
    assert "The column attributes of" in output
    assert "holds lists or objects" in output


def test_ids_of_events_are_texts_as_they_are_written(tmp_path: Path) -> None:
    """Two that are one number are two events, and what clients send again meets what was loaded."""
    (tmp_path / "log.csv").write_text(
        "user,item,time,id\nann,a,1700000000,12.10\nann,b,1700000001,12.1\nann,c,1700000002,7\nann,d,1700000003,\n"
    )
    url = f"sqlite:///{tmp_path}/text.db"
    status, output = run("histories", "import", tmp_path / "log.csv", "--histories", url, "--event-id", "id")
    assert status == 0, output
    assert "4 were new" in output
    assert asyncio.run(ids(url, "ann"))[:3] == ["12.10", "12.1", "7"]
    # Of another column that looks like this, numbers are made as before.
    assert run("histories", "import", tmp_path / "log.csv", "--histories", f"{url}-kept", "--keep", "id")[0] == 0
    assert [event[4] for event in asyncio.run(stored(f"{url}-kept", "ann"))[0]] == [{"id": 12.1}, {"id": 12.1}, {"id": 7}, {}]


@pytest.mark.parametrize("name", ["log.parquet", "interactions.parquet"])
def test_ids_of_events_that_pandas_made_floats_are_whole_numbers(tmp_path: Path, name: str) -> None:
    columns = {"user": ["ann"] * 2, "item": ["a", "b"], "timestamp": [1.7e9, 1.7e9 + 1], "attributes.order": [12.0, None]}
    pq.write_table(pa.table(columns), tmp_path / name)
    url = f"sqlite:///{tmp_path}/h.db"
    status, output = run("histories", "import", tmp_path / name, "--histories", url, "--event-id", "attributes.order")
    assert status == 0, output
    assert asyncio.run(ids(url, "ann"))[0] == "12"


def test_numbers_that_are_whole_in_part_stay_so_from_the_table_to_the_store(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time,price\nann,a,1700000000,5\nann,b,1700000001,4.5\n")
    assert run("prepare", tmp_path / "log.csv", "--keep", "price", "--out", tmp_path / "data")[0] == 0
    for source, flags in ((tmp_path / "data", ()), (tmp_path / "log.csv", ("--keep", "price")), (tmp_path / "data", ("--kind", "none"))):
        url = f"sqlite:///{tmp_path}/{source.name}{len(flags)}{'-'.join(flags)}.db"
        assert run("histories", "import", source, "--histories", url, *flags)[0] == 0
        assert [repr(event[4]) for event in asyncio.run(stored(url, "ann"))[0]] == ["{'price': 5}", "{'price': 4.5}"]


def test_the_command_takes_what_is_said_of_text_and_times(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes("zoé|a|14/11/2023\nzoé|b|15/11/2023\n".encode("latin-1"))
    said = ("--columns", "user,item,time", "--delimiter", "|", "--encoding", "latin-1", "--no-quotes", "--time-format", "%d/%m/%Y")
    url = f"sqlite:///{tmp_path}/h.db"
    status, output = run("histories", "import", tmp_path / "log.txt", "--histories", url, *said)
    assert status == 0, output
    assert [event[:2] for event in asyncio.run(stored(url, "zoé"))[0]] == [("a", 1_699_920_000.0), ("b", 1_700_006_400.0)]


def test_profiles_are_made_one_by_one(tmp_path: Path) -> None:
    """Ten million dictionaries take gigabytes."""
    (tmp_path / "profiles.jsonl").write_text('{"user": "ann", "age": 30}\n{"user": "bob"}\n')
    profiles = load_file(tmp_path / "profiles.jsonl")
    assert dict(profiles) == {"ann": {"age": 30}, "bob": {}}
    assert profiles["ann"] is not profiles["ann"]
    assert (profiles.of("cid"), "cid" in profiles, len(profiles)) == ({}, False, 2)
    assert _profiles(tmp_path, None).keys() == profiles.keys()
    assert type(_profiles(tmp_path, None)) is type(profiles)


def test_the_command_loads_any_file_and_refuses_memory(tmp_path: Path) -> None:
    lines = [{"who": "ann", "sku": n, "ts": 1.7e9 + n, "id": f"e{n}"} for n in range(9)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    url = f"sqlite:///{tmp_path}/h.db"
    flags = ("histories", "import", tmp_path / "log.jsonl", "--user", "who", "--event-id", "id", "--history-max-events", 4)
    status, output = run(*flags, "--histories", url)
    assert status == 0, output
    assert "Sent 4 events of 1 users" in output
    assert [event[0] for event in asyncio.run(stored(url, "ann"))[0]] == ["5", "6", "7", "8"]
    status, output = run(*flags, "--histories", "memory://")
    assert status == 1
    assert "memory:// ends with this command" in output
    assert run(*flags, "--histories", "mongodb://x")[0] == 1


def test_the_command_loads_into_the_home_of_whoever_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by the environment when it runs, and not when its module was imported."""
    (tmp_path / "log.csv").write_text("user,item,time\nann,a,1700000000\n")
    monkeypatch.delenv("ATSPEED_HISTORIES", raising=False)
    for home in ("one", "two"):
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / home))
        status, output = run("histories", "import", tmp_path / "log.csv")
        assert status == 0, output
        assert "1 were new" in output
        assert [event[0] for event in asyncio.run(stored(f"sqlite:///{tmp_path / home}/atspeed/histories.db", "ann"))[0]] == ["a"]
