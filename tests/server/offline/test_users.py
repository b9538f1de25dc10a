"""Files of users: whatever they are cut into, and in whatever form, the same users ask the same questions."""

import json
import os
from datetime import datetime
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drafting.errors import SetupError
from server.offline.folder import FolderError, FolderFile
from server.offline.local_folder import LocalFolder
from server.offline.object_folder import _same
from server.offline.user_files import UserFile, UserPlace
from server.offline.users import _row_group, _table, plan_blocks, read_rows


def rows_of(files: list[UserFile], most: int) -> list[tuple[int, int, bytes | str]]:
    blocks = list(plan_blocks(files, most))
    assert [block.part for block in blocks] == list(range(len(blocks)))
    found = [list(read_rows(files, block)) for block in blocks]
    assert [block.users for block in blocks] == list(map(len, found))
    assert all(0 < len(rows) <= most for rows in found)
    return [(row.number, row.line, row.text) for row in chain.from_iterable(found)]


@given(
    lines=st.lists(st.sampled_from([b"", b"  ", b"\r", b'{"k": 1}', b'{"k": 22}\r', b"not JSON"])),
    most=st.integers(1, 5),
    ends=st.booleans(),
)
def test_blocks_are_the_lines_of_the_file(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], most: int, ends: bool):
    folder = tmp_path_factory.mktemp("users")
    for name in ("a.jsonl", "b.jsonl"):
        (folder / name).write_bytes(b"\n".join(lines) + (b"\n" if ends and lines else b""))
    one = [(number, number + 1, text) for number, text in enumerate(lines) if text.strip()]
    # An empty last line is no line of the file.
    count = len(lines) - (not ends and bool(lines) and not lines[-1])
    assert rows_of(UserPlace.of(str(folder / "a.jsonl")).files(), most) == one
    assert rows_of(UserPlace.of(str(folder)).files(), most) == one + [(count + number, line, text) for number, line, text in one]


@pytest.mark.parametrize("group", [2, 5, 100])
def test_a_row_of_a_table_is_the_line_with_the_same_fields(tmp_path: Path, group: int):
    users = [
        {"user_id": 7, "history": ["a", "b"], "k": None, "profile": {"age": None, "city": "x"}, "other": 1.5},
        {"user_id": None, "history": None, "k": 3, "profile": None, "other": 2.5},
        {"user_id": 9, "history": [], "k": 1, "profile": {"age": 4, "city": None}, "other": None},
    ] * 3
    pq.write_table(pa.Table.from_pylist(users), tmp_path / "users.parquet", row_group_size=group)
    lines = [
        {"user_id": 7, "history": ["a", "b"], "profile": {"city": "x"}},
        {"k": 3},
        {"user_id": 9, "history": [], "k": 1, "profile": {"age": 4}},
    ] * 3
    files = UserPlace.of(str(tmp_path / "users.parquet")).files()
    for most in (1, 3, 4, 100):
        rows = rows_of(files, most)
        assert [json.loads(text) for _, _, text in rows] == lines
        assert [(number, line) for number, line, _ in rows] == [(number, number + 1) for number in range(9)]


def test_maps_and_times_of_a_table(tmp_path: Path):
    event = pa.struct({"item_id": pa.string(), "timestamp": pa.timestamp("us")})
    columns = {
        "history": pa.array([[{"item_id": "a", "timestamp": datetime(2026, 1, 2)}]], pa.list_(event)),
        "behaviours": pa.array([[("view", ["b"])]], pa.map_(pa.string(), pa.list_(pa.string()))),
    }
    pq.write_table(pa.table(columns), tmp_path / "users.pq")
    ((_, _, text),) = rows_of(UserPlace.of(str(tmp_path / "users.pq")).files(), 5)
    assert json.loads(text) == {"history": [{"item_id": "a", "timestamp": "2026-01-02T00:00:00Z"}], "behaviours": {"view": ["b"]}}


def test_ids_and_numbers_of_a_table_are_those_that_were_meant(tmp_path: Path):
    """Texts that say nothing of being texts, whole numbers as floats (beside a gap), decimals of any size; what is not whole stays."""
    spent_and_visits = [("spent", pa.decimal128(10, 2)), ("visits", pa.decimal128(5, 0))]
    columns = {
        "user_id": pa.array([b"ann", "bo\u00eb".encode()], pa.binary()),
        "history": pa.array([[b"a"], [b"b"]], pa.list_(pa.large_binary())),
        "k": pa.array([3.0, float("nan")]),
        "beam_width": pa.array([Decimal(4), None], pa.decimal128(10, 2)),
        "profile": pa.array([{"spent": Decimal("12.50"), "visits": Decimal(3)}, None], pa.struct(spent_and_visits)),
        "exclude": pa.array([[Decimal(7), Decimal(10**20)], None], pa.list_(pa.decimal128(38, 0))),
        "behaviours": pa.array([[(b"view", [b"c"])], None], pa.map_(pa.binary(), pa.list_(pa.binary()))),
        "context": pa.array([{"hour": 3.0}, {"hour": 3.5}]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    pq.write_table(pa.table({"user_id": [7.0, 7.5], "history": [["a"], ["b"]]}), tmp_path / "b.parquet")
    found = [json.loads(text) for _, _, text in rows_of(UserPlace.of(str(tmp_path)).files(), 5)]
    assert found == [
        {
            "user_id": "ann",
            "history": ["a"],
            "k": 3,
            "beam_width": 4,
            "profile": {"spent": 12.5, "visits": 3},
            "exclude": [7, "1" + 20 * "0"],
            "behaviours": {"view": ["c"]},
            "context": {"hour": 3.0},
        },
        {"user_id": "bo\u00eb", "history": ["b"], "k": None, "context": {"hour": 3.5}},
        {"user_id": 7, "history": ["a"]},
        {"user_id": 7.5, "history": ["b"]},
    ]
    assert isinstance(found[0]["k"], int)
    assert isinstance(found[0]["profile"]["visits"], int)
    assert isinstance(found[0]["context"]["hour"], float)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([[("a", 1)], [("b", 1), ("b", 2)]], pa.map_(pa.string(), pa.int64())), "duplicate key"),
        (pa.array([0, 2**62], pa.timestamp("us")), "date value out of range"),
        (pa.array([b"a", b"\xff"]), "can't decode byte 0xff"),
        (pa.array([b"a", b"\xff"]).view(pa.string()), "can't decode byte 0xff"),
    ],
)
def test_a_row_that_can_not_be_read_costs_only_itself(tmp_path: Path, column: pa.Array, reason: str):
    pq.write_table(pa.table({"history": [["a"], ["b"]], "context": column}), tmp_path / "users.parquet")
    (_, _, first), (_, line, second) = rows_of(UserPlace.of(str(tmp_path / "users.parquet")).files(), 5)
    assert json.loads(first)["history"] == ["a"]
    assert line == 2
    assert isinstance(second, str)
    assert second.startswith("The row can't be read: ")
    assert reason in second


def test_what_a_place_names(tmp_path: Path):
    for name in ("a.jsonl", "b.parquet", "_SUCCESS", ".c.jsonl", "note.txt", "day=1/d.jsonl", "day=2/e.jsonl", "day=[3]/f.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(place: str) -> list[str]:
        return [file.name for file in UserPlace.of(place).files()]

    for base in (str(tmp_path), f"file://{tmp_path}"):
        assert names(base) == names(f"{base}/") == ["a.jsonl", "b.parquet"]
        assert names(f"{base}/*.parquet") == ["b.parquet"]
        assert names(f"{base}/day=?/*.jsonl") == ["day=1/d.jsonl", "day=2/e.jsonl"]
        assert names(f"{base}/note.txt") == ["note.txt"]
        with pytest.raises(SetupError, match=r"There are no files of users at .*/x\*: they end in .jsonl"):
            names(f"{base}/x*")
    assert names(str(tmp_path / "day=[3]" / "f.jsonl")) == ["f.jsonl"]
    with pytest.raises(SetupError, match=r"none.jsonl can't be opened: No such file or directory"):
        names(str(tmp_path / "none.jsonl"))
    with pytest.raises(SetupError, match="URLs of s3://, gs://"):
        names("ftp://there/x.jsonl")


def test_a_folder_lists_one_depth_at_a_time(tmp_path: Path):
    """A folder of users may lie above a large tree, which nobody asks for."""
    for name in ("b.jsonl", "a.jsonl", "day=1/d.jsonl", "day=1/deep/e.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folder = LocalFolder(tmp_path)
    assert [[file.name for file in folder.files(folders)] for folders in range(4)] == [
        ["a.jsonl", "b.jsonl"],
        ["day=1/d.jsonl"],
        ["day=1/deep/e.jsonl"],
        [],
    ]
    assert LocalFolder(tmp_path / "none").files() == []


def test_a_file_is_written_though_another_writer_tidies_the_folder_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, sync, tidied = LocalFolder(tmp_path), os.fsync, []

    def tidy_once(descriptor: int) -> None:
        sync(descriptor)
        if not tidied:
            tidied.append(LocalFolder(tmp_path).tidy())

    monkeypatch.setattr("server.offline.local_folder.os.fsync", tidy_once)
    folder.write("part-000000.jsonl", b"{}")
    assert tidied
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"part-000000.jsonl": b"{}"}


def test_a_table_without_users(tmp_path: Path):
    pq.write_table(pa.table({"uid": [1], "items": [["a"]]}), tmp_path / "users.parquet")
    with pytest.raises(SetupError, match=r"has no column `history`.*; it has uid, items"):
        list(plan_blocks(UserPlace.of(str(tmp_path / "users.parquet")).files(), 5))
    pq.write_table(pa.table([[["a"]], [["b"]]], names=["history", "history"]), tmp_path / "users.parquet")
    with pytest.raises(SetupError, match="has two columns of the name history"):
        list(plan_blocks(UserPlace.of(str(tmp_path / "users.parquet")).files(), 5))
    pq.write_table(pa.table({"history": [["a"]]}), tmp_path / "users.parquet")
    (tmp_path / "users.parquet").write_bytes((tmp_path / "users.parquet").read_bytes().replace(b"history", b"hist\xff\xffy"))
    with pytest.raises(SetupError, match="can't be read"):
        list(plan_blocks(UserPlace.of(str(tmp_path / "users.parquet")).files(), 5))
    (tmp_path / "users.parquet").write_bytes(b"no table")
    with pytest.raises(SetupError, match="can't be read"):
        list(plan_blocks(UserPlace.of(str(tmp_path / "users.parquet")).files(), 5))


USERS = [{"user_id": number, "history": ["a"]} for number in range(6)]
OTHERS = [{"user_id": number, "history": ["a", "b"]} for number in range(6)]


def save(path: Path, users: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(users), path, row_group_size=2)
    else:
        path.write_text("".join(json.dumps(user) + "\n" for user in users))


@pytest.mark.parametrize("name", ["users.jsonl", "users.parquet"])
@pytest.mark.parametrize("in_place", [True, False])
def test_a_file_that_changes_while_a_run_reads_it_is_refused(tmp_path: Path, name: str, in_place: bool):
    path = tmp_path / name
    save(path, USERS)
    os.utime(path, (1, 1))
    files = UserPlace.of(str(path)).files()
    first, second, *_ = plan_blocks(files, 2)
    assert len(list(read_rows(files, first))) == 2
    changed = path if in_place else tmp_path / f"other-{name}"
    save(changed, OTHERS)
    changed.rename(path)
    # As in another worker, which has nothing of the table yet.
    _table.cache_clear()
    _row_group.cache_clear()
    with pytest.raises(FolderError, match=rf"/{name} has changed since the run began: begin anew"):
        list(read_rows(files, second))
    with pytest.raises(FolderError, match="has changed"):
        list(plan_blocks(files, 2))


def test_a_file_of_the_same_size_that_takes_the_place_of_another_is_refused(tmp_path: Path):
    path = tmp_path / "users.jsonl"
    save(path, USERS)
    os.utime(path, (1, 1))
    files = UserPlace.of(str(path)).files()
    (block,) = plan_blocks(files, 10)
    save(path, USERS)
    with pytest.raises(FolderError, match="has changed"):
        list(read_rows(files, block))


def test_tags_of_an_object_are_one_however_they_are_quoted():
    file = FolderFile("a", 3, '"x"')
    assert all(_same(file, FolderFile("a", 3, tag)) for tag in ('"x"', "x", 'W/"x"'))
    assert not any(_same(file, other) for other in (FolderFile("a", 3, '"y"'), FolderFile("a", 4, '"x"')))
