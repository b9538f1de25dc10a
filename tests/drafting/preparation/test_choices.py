"""What is chosen, left out and told: columns, bad lines, ratings, repeats, cores, splits; and that a directory is whole or absent."""

import errno
import json
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafting.alignment.data.profiles import load_profiles
from drafting.alignment.data.record import prepared, split_kind
from drafting.catalog.item_list import ItemList
from drafting.errors import InteractionError
from drafting.preparation import delimited, rows, run, writing
from drafting.preparation.delimited import _line, found_form, read_delimited
from drafting.preparation.rows import BadLines
from drafting.preparation.settings import PrepareSettings
from drafting.preparation.tables import TextOptions
from tests.drafting.preparation.preparing import made, written

DAY = 86_400
HEADER = "visitorid,ts,event,sku,session,stars\n"


def shop(folder: Path, rows: str, header: str = HEADER) -> Path:
    return written(folder / "data.csv", header + rows)


def test_columns_are_guessed_told_and_overruled(tmp_path: Path) -> None:
    data = shop(tmp_path, "a,1700000000,buy,x,s1,4\nb,1700000001,view,y,s2,2\n")
    found = made(tmp_path, data, keep=("session",))
    assert "data.csv: user = visitorid, item = sku, time = ts, value = stars, kind = event.\n" in found.told
    assert found.rows[0] == {"user": "a", "item": "x", "timestamp": 1.7e9, "value": 4.0, "kind": "buy", "attributes.session": "s1"}
    assert found.record["columns"] == {
        "user": "visitorid",
        "item": "sku",
        "time": "ts",
        "value": "stars",
        "kind": "event",
        "keep": ["session"],
    }
    other = made(tmp_path, data, columns={"user": "session", "item": None})
    assert [row["user"] for row in other.rows] == ["s1", "s2"]
    assert "Left out: visitorid (--keep NAME keeps one)." in other.told
    with pytest.raises(InteractionError, match="has no column 'nobody': it has visitorid, ts"):
        made(tmp_path, data, columns={"user": "nobody"})
    with pytest.raises(InteractionError, match="has no column 'nobody' to keep"):
        made(tmp_path, data, keep=("nobody",))


def test_a_file_without_a_header_and_without_times(tmp_path: Path) -> None:
    data = written(tmp_path / "plain.txt", "b|y\na|x\nb|x\n")
    found = made(tmp_path, data, text=TextOptions(names=("user", "item")))
    assert "There is no column of times, so the order of the rows is the order of time." in found.told
    assert found.triples == [("a", "x", 1.0), ("b", "y", 0.0), ("b", "x", 2.0)]
    assert found.summary.span is None
    with pytest.raises(InteractionError, match=r"--columns names 3 columns, but the first line of .* has 2 values"):
        made(tmp_path, data, text=TextOptions(names=("user", "item", "time")))


def test_histories_in_the_order_of_ids_are_told_where_the_rows_decide(tmp_path: Path) -> None:
    """As in an export that was sorted, or one with days for times: a model would learn that order, and be judged by it."""
    rng = np.random.default_rng(0)
    histories = [rng.permutation(50)[:6].tolist() for _ in range(30)]

    def told(order: Callable[[list[int]], list[int]], time: Callable[[int], str]) -> str:
        lines = [f"u{user},{item}{time(place)}\n" for user, items in enumerate(histories) for place, item in enumerate(order(items))]
        header = "user,item,time\n" if time(0) else "user,item\n"
        return made(tmp_path, written(tmp_path / "data.csv", header + "".join(lines))).told

    sentence = "Of 150 pairs of neighbours in histories that the order of the rows alone puts in order, 150 stand in the "
    for time in (lambda place: "", lambda place: ",2024-05-06"):
        assert f"{sentence}order of their items' ids" in told(sorted, time)
        assert f"{sentence}reverse order of their items' ids" in told(lambda items: sorted(items, reverse=True), time)
        assert "items' ids" not in told(list, time)
    assert "items' ids" not in told(sorted, lambda place: f",{1_700_000_000 + place}")


def test_kept_columns_are_numbers_where_all_their_texts_are(tmp_path: Path) -> None:
    data = written(tmp_path / "data.csv", "user,item,page,code\na,x,3,007\nb,y,,12\nb,x,1.5,x\n")
    found = made(tmp_path, data, keep=("page", "code"))
    assert [row["attributes.code"] for row in found.rows] == ["007", "12", "x"]
    details = found.loaded().details
    assert details is not None
    assert [str(details.event(row, 0, None).attributes) for row in range(3)] == [
        "{'page': 3, 'code': '007'}",
        "{'code': '12'}",
        "{'page': 1.5, 'code': 'x'}",
    ]


def test_kept_decimals_are_numbers(tmp_path: Path) -> None:
    """Whole where their type has no fractions, as a database exports integers: a request will write 5, and a prompt would read 5.0."""
    columns = {"price": pa.array([Decimal("5.00"), Decimal("4.50")]), "size": pa.array([Decimal(5), None], pa.decimal128(38, 0))}
    pq.write_table(pa.table({"user": ["a", "a"], "item": ["x", "y"], **columns}), tmp_path / "data")
    found = made(tmp_path, tmp_path / "data", keep=("price", "size")).rows
    assert [str((row["attributes.price"], row["attributes.size"])) for row in found] == ["(5.0, 5)", "(4.5, None)"]


def test_kept_columns_of_nothing_are_kept(tmp_path: Path) -> None:
    data = written(tmp_path / "data.csv", "user,item,page\na,x,\nb,y,\n")
    details = made(tmp_path, data, keep=("page",)).loaded().details
    assert details is not None
    assert details.event(0, 0, None).attributes == {}


@pytest.mark.parametrize("nested", [["war"], {"a": 1}, [{"a": 1}]], ids=repr)
def test_kept_columns_of_lists_or_objects_are_refused_in_a_sentence(tmp_path: Path, nested: object) -> None:
    sentence = r"The column tags of .*data holds lists or objects: what is kept is texts, numbers and booleans\.$"
    rows = [{"user": "a", "item": "x", "tags": None}, {"user": "b", "item": "y", "tags": nested}]
    with pytest.raises(InteractionError, match=sentence):
        made(tmp_path, written(tmp_path / "data", "".join(f"{json.dumps(row)}\n" for row in rows)), keep=("tags",))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data")
    with pytest.raises(InteractionError, match=sentence):
        made(tmp_path, tmp_path / "data", keep=("tags",))


def test_bad_lines_are_named_counted_and_refused_beyond_a_share(tmp_path: Path) -> None:
    good = [f"u{number},170000{number:04d},buy,i{number % 7},s,3" for number in range(200)]
    good[10], good[20], good[30], good[40] = "oops", ",1700000000,buy,x,s,3", "u,noon,buy,x,s,3", "u,1700000000,buy,x,s,many"
    data = shop(tmp_path, "\n".join(good))
    found = made(tmp_path, data, bad_lines=0.02)
    assert "4 of 200 lines can't be used and are left out: " in found.told
    for reason in (
        "line 12 of data.csv: 1 values where 6 are expected, 'oops'",
        "line 22 of data.csv: it lacks a user or an item",
        "line 32 of data.csv: its ts is no time, 'noon'",
        "line 42 of data.csv: its stars is no number, 'many'",
    ):
        assert reason in found.told
    assert (found.record["lines"], found.record["bad_lines"], len(found.rows)) == (200, 4, 196)
    with pytest.raises(InteractionError, match=r"4 of 200 lines .* more than the share of 0.019 that --bad-lines allows: line 12"):
        made(tmp_path, data, bad_lines=0.019)


def test_the_share_of_bad_lines_is_of_all_wherever_they_stand(tmp_path: Path) -> None:
    rows = [*["oops\n"] * 10_002, *(f"u{number % 7},i{number}\n" for number in range(10_100))]
    for lines in (rows, rows[::-1]):
        data = written(tmp_path / "data.csv", "user,item\n" + "".join(lines))
        assert made(tmp_path, data, bad_lines=0.5).record["bad_lines"] == 10_002
        with pytest.raises(InteractionError, match=r"10,002 of 20,102 lines .* more than the share of 0\.49"):
            made(tmp_path, data, bad_lines=0.49)


def test_many_bad_lines_are_told_before_all_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "TOLD_EARLY", 7)
    early = "lines can't be used so far: line 2 of data.csv: "
    for bad, expected in (("oops\n", 7), (",i\n", 9)):
        for many in (6, 9):
            data = written(tmp_path / "data.csv", "user,item\n" + bad * many + "u,i\n" * 9)
            told = made(tmp_path, data, bad_lines=0.5).told
            assert told.count(early) == (many > 6)
            assert many < 7 or f"{expected} {early}" in told


def test_lines_are_numbered_behind_bad_ones_and_of_these_no_more_is_kept_than_of_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 64)
    kept: list[int] = []

    def counted(first: int, broken: Sequence[int], row: int) -> int:
        kept.append(len(broken))
        return _line(first, broken, row)

    monkeypatch.setattr(delimited, "_line", counted)
    rng = np.random.default_rng(0)
    good = np.concatenate([rng.random(200) < 0.5, np.zeros(100, bool), rng.random(200) < 0.5])
    text = "user,item\n" + "".join(f"u,{line}\n" if is_good else "oops\n" for line, is_good in enumerate(good, start=2))
    path = written(tmp_path / "data.csv", text)
    found = []
    for batch in read_delimited(path, found_form(path), ("item",), BadLines(), lambda read: None):
        assert [str(batch.line_of(row)) for row in range(batch.size)] == batch.columns["item"].to_pylist()
        found += batch.columns["item"].to_pylist()
    assert len(found) == good.sum()
    # The lines of a block, and of the next, which is read ahead.
    assert max(kept) <= 2 * 64 / len("oops\n") < 100


@pytest.mark.parametrize(
    ("role", "column", "values", "sentence"),
    [
        ("rating", "value", ["high", "low", "high"], "its value is no number, 'high'"),
        ("time", "day", ["Monday", "Friday", "Monday"], "its day is no time, 'Monday'"),
    ],
)
def test_a_column_that_was_guessed_can_be_declined_and_the_refusal_says_how(
    tmp_path: Path, role: str, column: str, values: list[str], sentence: str
) -> None:
    rows = "".join(f"u{number},i{number},{value}\n" for number, value in enumerate(values))
    data = written(tmp_path / "data.csv", f"user,item,{column}\n{rows}")
    for bad_lines in (0.01, 1.0):
        with pytest.raises(InteractionError, match=sentence) as refused:
            made(tmp_path, data, bad_lines=bad_lines)
        said = str(refused.value)
        assert said.endswith(f"If {column} holds no {role}s, say --{role} none, or --{role} with the column that does.")
        # To decline times gives up their order, so it is said last.
        assert (" --time-format FORM " in said) == (role == "time")
    found = made(tmp_path, data, columns={role: "none"}, keep=(column,))
    assert [row[f"attributes.{column}"] for row in found.rows] == values
    assert found.record["columns"][role if role == "time" else "value"] is None


def test_kinds_can_be_declined_but_neither_users_nor_items(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"user": "a", "item": "x", "event": {"id": 1}}]), tmp_path / "data")
    with pytest.raises(InteractionError, match=r"of type struct.* say --kind none"):
        made(tmp_path, tmp_path / "data")
    assert made(tmp_path, tmp_path / "data", columns={"kind": "none"}).triples == [("a", "x", 0.0)]
    with pytest.raises(InteractionError, match="has no column 'none'"):
        made(tmp_path, tmp_path / "data", columns={"kind": "none", "item": "none"})
    named = written(tmp_path / "named.csv", "user,item,none\na,x,buy\n")
    assert made(tmp_path, named, columns={"kind": "none"}).rows[0]["kind"] == "buy"


def test_whole_numbers_that_are_floats_in_some_files_are_the_same_users_and_items(tmp_path: Path) -> None:
    """As pandas writes a file in which an id is missing."""
    whole = "".join(f"{user},{user % 3},{1_700_000_000 + user}\n" for user in range(10))
    floats = "".join(f"{user}.0,{user % 4}.0,{1_700_000_100 + user}\n" for user in range(12))
    written(tmp_path / "parts/a.csv", f"user,item,time\n{whole}")
    written(tmp_path / "parts/b.csv", f"user,item,time\n{floats},3.0,1700000200\n")
    found = made(tmp_path, tmp_path / "parts", bad_lines=0.1)
    assert {row["user"] for row in found.rows} == {str(user) for user in range(12)}
    assert {row["item"] for row in found.rows} == {"0", "1", "2", "3"}
    assert "12 ids of the column user are written like 0.0 and mean whole numbers: 0." in found.told
    written(tmp_path / "parts/c.csv", "user,item,time\nguest,1,1700000300\n")
    assert len({row["user"] for row in made(tmp_path, tmp_path / "parts", bad_lines=0.1).rows}) == 13
    versions = written(tmp_path / "versions.csv", "user,item,time\na,1.0,1700000000\na,1.5,1700000001\n")
    assert [row["item"] for row in made(tmp_path, versions).rows] == ["1.0", "1.5"]


def test_bad_lines_of_json_are_named(tmp_path: Path) -> None:
    lines = [json.dumps({"user": "u", "item": number, "time": 1.7e9 + number}) for number in range(20)]
    lines[3], lines[5] = '{"user": "u", "item"', '{"user": {"id": 5}, "item": 1, "time": 5}'
    found = made(tmp_path, written(tmp_path / "data", "\n".join(lines)), bad_lines=0.1)
    assert "2 of 20 lines" in found.told
    assert 'line 4 of data: no JSON object, \'{"user": "u", "item"\'' in found.told
    assert "line 6 of data: it lacks a user or an item" in found.told


def test_nan_in_json_is_nothing_wherever_it_stands(tmp_path: Path) -> None:
    """As json.dumps writes rows of pandas: users without an id were one of the name nan."""
    rows = [("a", "x", 3), ("a", "y", np.nan), (np.nan, "x", 4), ("b", np.nan, 5)]
    lines = [dict(zip(("user", "item", "page"), row, strict=True)) | {"time": 1_700_000_000 + place} for place, row in enumerate(rows)]
    data = written(tmp_path / "data", "".join(f"{json.dumps(line)}\n" for line in lines))
    found = made(tmp_path, data, keep=("page",), bad_lines=0.5)
    kept = [("a", "x", 3), ("a", "y", None)]
    assert [(row["user"], row["item"], row["attributes.page"]) for row in found.rows] == kept
    assert "2 of 4 lines can't be used and are left out: line 3 of data: it lacks a user or an item; line 4 of data: " in found.told
    odd = json.dumps([*lines, {"user": "\ud800", "item": "z"}])
    array = made(tmp_path, written(tmp_path / "array", odd), keep=("page",), bad_lines=0.6)
    assert [(row["user"], row["item"], row["attributes.page"]) for row in array.rows] == kept
    assert "3 of 5 lines can't be used and are left out: line 5 of array: no UTF-8; line 3 of array: it lacks a user" in array.told


def test_objects_and_rows_without_user_and_item_are_no_blank_lines(tmp_path: Path) -> None:
    """The second file has other names, as after a change of what writes the logs: all that it says would be lost without a word."""
    old = "".join(json.dumps({"user": "u", "item": f"i{number}", "time": 1_700_000_000 + number}) + "\n" for number in range(3))
    written(tmp_path / "logs/2023.jsonl", old)
    written(tmp_path / "logs/2024.jsonl", old[: old.index("\n") + 1].replace("user", "userId").replace("item", "itemId"))
    sentence = r"1 of 4 lines can't be used, more than .*: line 1 of 2024\.jsonl: it lacks a user or an item"
    with pytest.raises(InteractionError, match=sentence):
        made(tmp_path, tmp_path / "logs")
    pq.write_table(pa.table({"user": ["u", None], "item": ["x", None], "time": [1_700_000_000] * 2}), tmp_path / "data")
    assert "1 of 2 lines can't be used and are left out: line 2 of data: it lacks" in made(tmp_path, tmp_path / "data", bad_lines=0.5).told
    array = written(tmp_path / "array", '[{"user": "u", "item": "x"}, null, {"user": "u"}]')
    told = made(tmp_path, array, bad_lines=0.9).told
    assert "2 of 3 lines can't be used and are left out: line 2 of array: no JSON object; line 3 of array: it lacks a user" in told


def test_dates_beside_numbers_are_bad(tmp_path: Path) -> None:
    data = written(tmp_path / "data.csv", "user,item,time\na,x,2024-01-02\na,y,1704153600\nb,x,2024-01-03T00:00:00Z\n")
    found = made(tmp_path, data, bad_lines=0.5)
    assert found.triples == [("a", "x", 1704153600.0), ("b", "x", 1704153600.0 + DAY)]
    assert found.summary.span == ("2024-01-02", "2024-01-03")
    with pytest.raises(InteractionError, match="The column time holds dates, not numbers"):
        made(tmp_path, data, bad_lines=0.5, time_unit="seconds")


def test_ratings_repeats_and_the_same_twice(tmp_path: Path) -> None:
    rows = "a,1700000000,buy,x,s,3\na,1700000000,buy,x,s,4\na,1700000005,buy,x,s,5\na,1700000002,buy,y,s,1\na,1700000003,buy,y,s,\n"
    data = shop(tmp_path, rows)
    every = made(tmp_path, data)
    assert "1 interactions are left out: another of the same user, item, time and kind comes behind them." in every.told
    assert [row["value"] for row in every.rows] == [4.0, 1.0, None, 5.0]
    rated = made(tmp_path, data, min_rating=4)
    assert "3 interactions are left out: their rating is below 4, or they have none." in rated.told
    assert [row["value"] for row in rated.rows] == [4.0, 5.0]
    assert [row["timestamp"] for row in made(tmp_path, data, repeats="first").rows] == [1.7e9, 1.7e9 + 2]
    assert [row["timestamp"] for row in made(tmp_path, data, repeats="last").rows] == [1.7e9 + 3, 1.7e9 + 5]
    with pytest.raises(InteractionError, match=r"No interaction is left: --core 9 keeps users and items with as many"):
        made(tmp_path, data, core=9)
    with pytest.raises(InteractionError, match="--min-rating needs a column of ratings"):
        made(tmp_path, written(tmp_path / "bare.csv", "user,item\n1,2\n"), min_rating=3)


def test_the_split_is_recorded_and_its_labels_counted(tmp_path: Path) -> None:
    rows = "".join(f"u{user},{1_700_000_000 + DAY * step + user},buy,i{step},s,3\n" for user in range(4) for step in range(5))
    data = shop(tmp_path, rows)
    alone = made(tmp_path, data)
    assert prepared(alone.folder).split == "leave-one-out"
    assert (alone.summary.test_labels, alone.summary.unseen, alone.summary.median_history) == (4, 1.0, 5.0)
    timed = made(tmp_path, data, split="global-time")
    assert prepared(timed.folder).split == "global-time"
    assert (timed.summary.test_labels, timed.summary.unseen) == (2, 1.0)
    assert [split_kind(said, timed.folder) for said in ("auto", "leave-one-out")] == ["global-time", "leave-one-out"]
    assert prepared(tmp_path).split is None
    assert split_kind("auto", tmp_path) == "leave-one-out"
    written(tmp_path / "prepare.json", "{")
    with pytest.raises(InteractionError, match="Prepare the data again"):
        prepared(tmp_path)


def test_items_and_users_of_any_table(tmp_path: Path) -> None:
    data = written(tmp_path / "data.csv", "user,item\n1.0,7.0\n2.0,8.0\n,9.0\n1.0,8.0\n" + "1.0,7.0\n" * 97)
    items = written(
        tmp_path / "items.csv",
        "id,Name,genres,price,code,shelf,text\n7,Seven,war|love,1.50,007,,x\n8,Eight,war,2,12,a,\n7,Twice,,,,,\n9,Nobody's,,,,,\n",
    )
    users = written(tmp_path / "users.jsonl", '{"userId": 1, "age": 30, "likes": ["war", null], "bad": NaN}\n{"userId": 5, "age": 1}\n')
    found = made(tmp_path, data, items=items, users=users)
    assert found.items == [
        {"item_id": "7", "title": "Seven", "genres": ["war", "love"], "price": 1.5, "code": "007", "text": "x"},
        {"item_id": "8", "title": "Eight", "genres": ["war"], "price": 2, "code": "12", "shelf": "a"},
    ]
    assert found.profiles == [{"user": "1", "age": 30, "likes": ["war"]}]
    assert "items.csv: item = id; known of 2 of 2 items: code, genres, price, shelf, text, title." in found.told
    assert "1 rows are left out: their item came before." in found.told
    assert found.summary.titled == 2
    few = made(tmp_path, data, items=items, item_columns=("code",), title="shelf")
    assert few.items == [{"item_id": "7", "code": "007"}, {"item_id": "8", "title": "a", "code": "12"}]
    with pytest.raises(InteractionError, match="has no column 'isle'"):
        made(tmp_path, data, items=items, item_columns=("isle",))
    with pytest.raises(InteractionError, match=r"items.csv has no column 'isle'"):
        made(tmp_path, data, items=items, title="isle")
    with pytest.raises(InteractionError, match=r"items.csv has no column 'isle'"):
        made(tmp_path, data, items=items, item_key="isle")
    nameless = written(tmp_path / "nameless.csv", "a,b\n1,2\n")
    with pytest.raises(InteractionError, match=r"Which column of .*nameless.csv says the item\? Name it with --item-key: a, b"):
        made(tmp_path, data, items=nameless)


def test_fields_of_json_that_the_first_lines_lack_are_fields(tmp_path: Path) -> None:
    """What writes JSON leaves out what is null, as Spark does, so a field may be met late, or in a later file alone."""
    events = [{"user": f"u{number % 7}", "item": f"i{number}", "time": 1_700_000_000 + number} for number in range(300)]
    events[250] |= {"coupon": "five", "stars": 4}
    data = written(tmp_path / "data", "".join(f"{json.dumps(event)}\n" for event in events))
    lines = [json.dumps({"item": f"i{number}", "title": f"T{number}"} | ({"shelf": "a"} if number == 250 else {})) for number in range(299)]
    written(tmp_path / "items/part-0.jsonl", "\n".join(lines))
    written(tmp_path / "items/part-1.jsonl", '{"item": "i299", "brand": "b"}\noops\n')
    found = made(tmp_path, data, keep=("coupon",), columns={"rating": "stars"}, items=tmp_path / "items")
    known = {item.pop("item_id"): item for item in found.items}
    assert (known["i0"], known["i250"], known["i299"]) == ({"title": "T0"}, {"title": "T250", "shelf": "a"}, {"brand": "b"})
    late = [(row["value"], row["attributes.coupon"]) for row in found.rows if row["item"] in ("i249", "i250")]
    assert late == [(None, None), (4.0, "five")]
    few = made(tmp_path, data, items=tmp_path / "items", item_columns=("brand",))
    assert [item for item in few.items if "brand" in item] == [{"item_id": "i299", "brand": "b"}]
    with pytest.raises(InteractionError, match="has no column 'isle' to keep: it has user, item, time, coupon, stars"):
        made(tmp_path, data, keep=("isle",))
    wide = written(tmp_path / "wide", "".join(json.dumps({"item": f"i{number}", f"n{number}": 1}) + "\n" for number in range(1_001)))
    with pytest.raises(InteractionError, match=r"1,001 names of attributes, .* Choose some with --item-columns"):
        made(tmp_path, data, items=wide)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_titles_are_texts_whatever_they_look_like(tmp_path: Path, form: str) -> None:
    """Else `atspeed catalog build` refuses them."""
    titles = ["1984", "2001", "300"]
    rows = [{"item": f"i{number}", "name": title if form == "csv" else int(title), "year": 1949} for number, title in enumerate(titles)]
    items = tmp_path / "items"
    match form:
        case "csv":
            written(items, "item,name,year\n" + "".join(",".join(map(str, row.values())) + "\n" for row in rows))
        case "jsonl":
            written(items, "".join(f"{json.dumps(row)}\n" for row in rows))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), items)
    data = written(tmp_path / "data.csv", "user,item\na,i0\na,i1\nb,i2\n")
    found = made(tmp_path, data, items=items)
    assert ItemList.read(found.folder / "items.jsonl").attributes == {"title": titles, "year": [1949] * 3}


def test_a_column_that_gives_its_name_to_another_is_told(tmp_path: Path) -> None:
    items = written(tmp_path / "items.csv", "item,title,name\nx,Mr,Old Shatterhand\n")
    found = made(tmp_path, written(tmp_path / "data.csv", "user,item\na,x\n"), items=items, title="name")
    assert found.items == [{"item_id": "x", "title": "Old Shatterhand"}]
    assert "Left out of items.csv: title, as name holds the titles." in found.told


def test_titles_of_other_types_are_texts_or_told(tmp_path: Path) -> None:
    titles = [7.0, 1.5, True, ["a", "b"]]
    items = written(tmp_path / "items", "".join(f"{json.dumps({'item': f'i{n}', 'title': title})}\n" for n, title in enumerate(titles)))
    data = written(tmp_path / "data.csv", "user,item\na,i0\na,i1\nb,i2\nb,i3\n")
    found = made(tmp_path, data, items=items)
    assert [item.get("title") for item in found.items] == ["7", "1.5", "true", None]
    assert "1 values are left out, as no catalog takes them: the first title is a list or an object, not a text." in found.told


def test_bare_bytes_of_parquet_are_names_of_items_and_users_as_of_interactions(tmp_path: Path) -> None:
    """Hive and Impala say nothing of their texts being texts."""
    for name, columns in {"data": ("user", "item"), "items": ("item", "title"), "users": ("user", "city")}.items():
        pq.write_table(pa.table({column: [column.encode()] for column in columns}), tmp_path / name)
    found = made(tmp_path, tmp_path / "data", items=tmp_path / "items", users=tmp_path / "users")
    assert found.triples == [("user", "item", 0.0)]
    assert (found.items, found.profiles) == ([{"item_id": "item", "title": "title"}], [{"user": "user", "city": "city"}])


def test_values_that_no_catalog_takes_are_left_out(tmp_path: Path) -> None:
    items = written(tmp_path / "items.jsonl", json.dumps({"item": "x", "title": "X", "text": "y" * 10_001}) + "\n")
    found = made(tmp_path, written(tmp_path / "data.csv", "user,item\na,x\n"), items=items)
    assert found.items == [{"item_id": "x", "title": "X"}]
    assert "1 values are left out, as no catalog takes them: the first text has more than 10,000 characters." in found.told


def test_what_no_profile_takes_is_left_out_of_profiles(tmp_path: Path) -> None:
    """Else training, evaluation and the import of histories would refuse the whole directory."""
    unusable = {"seen": [["x", 1]], "bio": "x" * 2001, "account": 2**53}
    lines = [{"user": "a", "home": {"city": "x"}, "age": 3}, {"user": "b", **unusable, "likes": ["war", None]}]
    users = written(tmp_path / "users.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))
    found = made(tmp_path, written(tmp_path / "data.csv", "user,item\na,x\nb,y\n"), users=users)
    assert dict(load_profiles(found.folder / "profiles.jsonl")) == {"a": {"age": 3}, "b": {"likes": ["war"]}}
    reason = "is no text, number, boolean or list of these"
    assert f"4 values are left out, as no profile takes them: the first home {reason}." in found.told


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({f"n{number}": 1 for number in range(50)}, "has 51 names, and 50 are possible"),
        ({f"n{number}": "x" * 1900 for number in range(5)}, "has 9,549 bytes as JSON, and 8,192 are possible"),
        ({"n" * 65: 1}, "has a name that can't be used: names have 1 to 64 characters, which UTF-8 can carry"),
    ],
    ids=["many names", "many bytes", "a long name"],
)
def test_a_profile_that_no_server_takes_is_refused_before_a_target_learns_from_it(
    tmp_path: Path, facts: dict[str, object], reason: str
) -> None:
    """Else the import of histories would be the first to say so."""
    data = written(tmp_path / "data.csv", "user,item\na,x\nb,y\n")
    users = written(tmp_path / "users.jsonl", f"{json.dumps({'user': 'a', 'age': 3})}\n{json.dumps({'user': 'b', 'age': 4, **facts})}\n")
    said = f"The profile of user 'b' could not be stored: it {reason}. Choose some columns with --user-columns."
    with pytest.raises(InteractionError, match=f"^{re.escape(said)}$"):
        made(tmp_path, data, users=users)
    assert made(tmp_path, data, users=users, user_columns=("age",)).profiles == [{"user": "a", "age": 3}, {"user": "b", "age": 4}]


@pytest.mark.parametrize(("role", "name"), [("item", "x"), ("user", "a")])
def test_too_many_columns_are_those_of_items_or_of_users(tmp_path: Path, role: str, name: str) -> None:
    columns = ",".join(f"n{number}" for number in range(101))
    table = written(tmp_path / "table.csv", f"{role},{columns}\n{name},{','.join('1' * 101)}\n")
    said = (
        rf"^The {role}s would have 101 names of attributes, but 100 are the most: each is a column over all {role}s\. "
        rf".* Choose some with --{role}-columns\.$"
    )
    with pytest.raises(InteractionError, match=said):
        made(tmp_path, written(tmp_path / "data.csv", "user,item\na,x\n"), **{f"{role}s": table})


def test_columns_with_the_names_of_ids_and_identifiers_are_renamed_and_told(tmp_path: Path) -> None:
    """No column takes the place of an id, and none is dropped when a catalog is made of the items."""
    items = written(tmp_path / "items.csv", "sku,item_id,title,codes,codes_,identifier,attributes\nx,100,X,7,8,abc,red\ny,101,Y,9,,,\n")
    users = written(tmp_path / "users.csv", "customer,user,age\na,b,30\nb,a,40\n")
    data = written(tmp_path / "data.csv", "customer,sku\na,x\nb,y\n")
    found = made(tmp_path, data, items=items, users=users)
    known = {"item_id_": [100, 101], "codes__": [7, 9], "codes_": [8, None], "identifier_": ["abc", None], "attributes_": ["red", None]}
    listed = ItemList.read(found.folder / "items.jsonl")
    assert listed.names == ["x", "y"]
    assert listed.attributes == {"title": ["X", "Y"], **known}
    assert found.profiles == [{"user": "a", "user_": "b", "age": 30}, {"user": "b", "user_": "a", "age": 40}]
    assert "The column codes of items.csv is called codes__ now: codes means something else in the files of items." in found.told
    assert "The column user of users.csv is called user_ now" in found.told
    few = made(tmp_path, data, items=items, item_columns=("title", "identifier"))
    assert few.items == [{"item_id": "x", "title": "X", "identifier_": "abc"}, {"item_id": "y", "title": "Y"}]


def test_a_part_of_the_file_has_the_names_alone_that_it_mentions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet keeps all values of a dictionary in each part: the names of all users would be there as many times as there are parts."""
    monkeypatch.setattr(writing, "_ROWS_AT_ONCE", 5)
    rows = [(f"{number:0100d}", f"i{number % 3}", number if number % 2 else "") for number in range(50)]
    data = written(tmp_path / "data.csv", "user,item,page\n" + "".join(f"{user},{item},{page}\n" for user, item, page in rows))
    found = made(tmp_path, data, keep=("page",))
    assert [(row["user"], row["item"], row["attributes.page"] or "") for row in found.rows] == rows
    parts = pq.ParquetFile(found.folder / "interactions.parquet").metadata
    sizes = [parts.row_group(number).column(0).total_uncompressed_size for number in range(parts.num_row_groups)]
    assert len(sizes) == 10
    assert max(sizes) < 25 * 100


def test_directories_of_others_stay(tmp_path: Path) -> None:
    data = written(tmp_path / "data.csv", "user,item\na,x\n")
    others = [written(tmp_path / f"out.{name}/mine", "mine") for name in ("partial", "replaced", "new", "old")]
    for _ in range(2):
        made(tmp_path, data)
    assert [path.read_text() for path in others] == ["mine"] * 4


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()], ids=repr)
def test_what_was_there_is_there_again_if_it_can_not_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    data = written(tmp_path / "data.csv", "user,item\na,x\n")
    found = made(tmp_path, data)
    before = sorted(path.name for path in tmp_path.iterdir())
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if target == found.folder and ".new-" in str(path):
            raise error
        return rename(path, target)

    written(data, "user,item\nb,y\n")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fail)
        with pytest.raises(type(error)):
            made(tmp_path, data)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert found.items == [{"item_id": "x"}]
    assert made(tmp_path, data).items == [{"item_id": "y"}]


def test_a_directory_is_whole_or_absent_and_nothing_else_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = written(tmp_path / "data.csv", "user,item\na,x\n"), tmp_path / "out"
    run.prepare(PrepareSettings(data, out), lambda _: None)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(InteractionError, match="already exists: choose another name, or pass --overwrite"):
        run.prepare(PrepareSettings(data, out), lambda _: None)

    def fail(*_: object) -> None:
        raise OSError("full")

    written(data, "user,item\nb,y\n")
    with monkeypatch.context() as patched:
        patched.setattr(run, "write_items", fail)
        with pytest.raises(OSError, match="full"):
            run.prepare(PrepareSettings(data, out, overwrite=True), lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert '"x"' in (out / "items.jsonl").read_text()
    (out / "prepare.json").unlink()
    with pytest.raises(InteractionError, match="was not made by `atspeed prepare`"):
        run.prepare(PrepareSettings(data, out, overwrite=True), lambda _: None)
    with pytest.raises(InteractionError, match="There is no directory"):
        run.prepare(PrepareSettings(data, tmp_path / "no/out"), lambda _: None)


def test_what_can_not_be_written_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    unread = tmp_path / "unread.csv"
    with monkeypatch.context() as patched:
        patched.chdir(tmp_path)
        patched.setattr(Path, "is_mount", lambda path: path.name == "out")
        for out in (".", "out"):
            with pytest.raises(
                InteractionError, match=r"^No directory can be moved to (\.|out), as is done when it is whole: name one in it\.$"
            ):
                run.prepare(PrepareSettings(unread, Path(out)), lambda _: None)
    monkeypatch.setattr(writing, "TemporaryDirectory", refuse)
    with pytest.raises(InteractionError, match=r"out cannot be written: Read-only file system\."):
        made(tmp_path, unread)


@pytest.mark.parametrize("wrong", [{"core": 0}, {"repeats": "some"}, {"split": "half"}, {"bad_lines": 2.0}])
def test_settings_that_say_nothing_are_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(InteractionError):
        PrepareSettings(tmp_path, tmp_path, **wrong)


def test_labels_of_users_without_a_history_are_not_counted_but_said(tmp_path: Path) -> None:
    """Of twenty interactions the last two are the test part: one of a newcomer, one of a user who is known."""
    users = f"{'ab' * 9}ca"
    rows = "".join(
        f"{user},{DAY * (20_000 + time)},view,{'xyz'[time % 3] if time < 19 else 'new'},s,1\n" for time, user in enumerate(users)
    )
    found = made(tmp_path, shop(tmp_path, rows), split="global-time").summary
    assert (found.test_labels, found.unseen, found.newcomers) == (1, 1.0, 1)
    assert dict(found.rows("global-time"))["without a history"] == "1 users of the test part, who are not among these"
    alone = made(tmp_path, shop(tmp_path, rows)).summary
    assert alone.newcomers == 0
    assert "without a history" not in dict(alone.rows("leave-one-out"))


@pytest.mark.parametrize(("split", "repeated"), [("leave-one-out", 2), ("global-time", 1)])
def test_labels_that_their_user_had_met_are_counted_and_said(tmp_path: Path, split: str, repeated: int) -> None:
    """The last of a was met in the training part, that of b in the validation part; that of c by others alone."""
    rows = "".join(
        f"{user},{DAY * (20_000 + 10 * place + number)},view,{item},s,1\n"
        for number, (user, items) in enumerate({"c": "xzwy", "b": "yzxx", "a": "xyzx"}.items())
        for place, item in enumerate(items)
    )
    data = shop(tmp_path, rows)
    found = made(tmp_path, data, split=split).summary
    assert found.repeats == repeated
    (said,) = [text for name, text in found.rows(split) if name == "met before"]
    assert said.startswith(f"{repeated} of these ({repeated / found.test_labels:.1%}): ")
    assert "--keep-seen" in said
    assert "--repeats first" in said
    alone = made(tmp_path, data, split=split, repeats="first").summary
    assert alone.repeats == 0
    assert "met before" not in dict(alone.rows(split))
