"""The same interactions in every form of file give the same data directory."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from drafting.alignment.data.loading import data_files
from drafting.errors import InteractionError
from drafting.preparation.tables import TextOptions
from tests.drafting.preparation.preparing import made, written

ROWS = [(7, 100, 1_700_000_000, 4.0), (7, 20, 1_700_000_100, 1.5), (10, 100, 1_700_000_050, 5.0), (9, 100, 1_700_000_007, 2.0)]
TRIPLES = [("7", "100", 1.7e9), ("7", "20", 1.7e9 + 100), ("9", "100", 1.7e9 + 7), ("10", "100", 1.7e9 + 50)]
NAMES = ("userId", "itemId", "timestamp", "rating")
CSV = "\n".join([",".join(NAMES), *(",".join(map(str, row)) for row in ROWS), ""])
JSONL = "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in ROWS)
TABLE = pa.table({name: list(column) for name, column in zip(NAMES, zip(*ROWS, strict=True), strict=True)})


def packed(pack: Callable[[bytes], bytes], text: str) -> Callable[[Path], Path]:
    return lambda folder: written(folder / "data", pack(text.encode()))


def plain(text: str) -> Callable[[Path], Path]:
    return packed(bytes, text)


def parquet(table: pa.Table) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        pq.write_table(table, folder / "data")
        return folder / "data"

    return write


def with_columns(**columns: pa.Array) -> pa.Table:
    return pa.table({name: columns.get(name, TABLE[name]) for name in NAMES})


def spark_csv(folder: Path) -> Path:
    """Two parts, the columns of the second in another order, beside the files that Spark leaves."""
    lines = CSV.splitlines()
    written(folder / "d/part-00000-5c.csv", "\n".join(lines[:3]) + "\n")
    written(
        folder / "d/part-00001-5c.csv.gz", gzip.compress(b"rating,timestamp,userId,itemId\n5.0,1700000050,10,100\n2.0,1700000007,9,100\n")
    )
    written(folder / "d/_SUCCESS", "")
    written(folder / "d/.part-00000-5c.csv.crc", b"\x00crc")
    return folder / "d"


def spark_hive(folder: Path) -> Path:
    """Folders that are named after the user, whose column the files lack."""
    for user in (7, 9, 10):
        part = TABLE.filter(pa.compute.equal(TABLE["userId"], user)).drop_columns("userId")
        (folder / f"d/userId={user}").mkdir(parents=True)
        pq.write_table(part, folder / f"d/userId={user}/part-0.snappy.parquet")
    written(folder / "d/_SUCCESS", "")
    return folder / "d"


FORMS: dict[str, Callable[[Path], Path]] = {
    "csv": plain(CSV),
    "csv with a byte order mark and carriage returns": plain("\ufeff" + CSV.replace("\n", "\r\n")),
    "csv of an old Mac": plain(CSV.replace("\n", "\r")),
    "csv with quotes": plain("\n".join(",".join(f'"{value}"' for value in line.split(",")) for line in CSV.splitlines())),
    "csv with spaces": plain(CSV.replace(",", ", ")),
    "csv with an index of pandas": plain("\n".join(f"{row or ''},{line}" for row, line in enumerate(CSV.splitlines()))),
    "csv with blank lines": plain(CSV.replace("\n", "\n\n")),
    "csv with floats of pandas": plain(CSV.replace(",100,", ",100.0,").replace(",20,", ",20.0,")),
    "csv of semicolons": plain(CSV.replace(",", ";")),
    "tsv": plain(CSV.replace(",", "\t")),
    "::": plain(CSV.replace(",", "::")),
    "gzip": packed(gzip.compress, CSV),
    "gzip in two members": lambda folder: written(folder / "data", gzip.compress(CSV[:50].encode()) + gzip.compress(CSV[50:].encode())),
    "bzip2": packed(bz2.compress, CSV),
    "xz": packed(lzma.compress, CSV),
    "zstandard": packed(lambda text: pa.compress(text, codec="zstd", asbytes=True), CSV),
    "jsonl": plain(JSONL),
    "jsonl without a last newline": plain(JSONL.rstrip("\n")),
    "jsonl with NaN": plain(JSONL + '{"userId": NaN, "itemId": NaN, "timestamp": NaN, "rating": NaN}\n'),
    "jsonl with more fields": plain(JSONL.replace('"rating"', '"text": "a\\nb", "images": [{"x": 1}], "rating"')),
    "jsonl packed": packed(gzip.compress, JSONL),
    "a JSON array": plain(f"[{','.join(JSONL.splitlines())}]"),
    "python literals": plain("".join(f"{dict(zip(NAMES, row, strict=True))!r}\n" for row in ROWS)),
    "parquet": parquet(TABLE),
    "parquet of texts": parquet(with_columns(userId=TABLE["userId"].cast(pa.string()), itemId=TABLE["itemId"].cast(pa.string_view()))),
    "parquet of floats with gaps": parquet(
        pa.concat_tables(
            [
                TABLE.set_column(1, "itemId", TABLE["itemId"].cast(pa.float64())),
                pa.table({"userId": [1], "itemId": [np.nan], "timestamp": [5], "rating": [1.0]}),
            ]
        )
    ),
    "parquet of polars": parquet(with_columns(userId=TABLE["userId"].cast(pa.large_string()).dictionary_encode())),
    "parquet of dates": parquet(with_columns(timestamp=TABLE["timestamp"].cast(pa.timestamp("s")).cast(pa.timestamp("ns", "UTC")))),
    "parquet of decimals": parquet(
        with_columns(
            **{name: TABLE[name].cast(pa.decimal128(38, 0)) for name in ("userId", "timestamp")},
            **{name: TABLE[name].cast(pa.decimal128(22, 2)) for name in ("itemId", "rating")},
        )
    ),
    "Spark's csv": spark_csv,
    "Spark's hive folders": spark_hive,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_interactions(tmp_path: Path, form: str) -> None:
    found = made(tmp_path, FORMS[form](tmp_path), bad_lines=0.2)
    assert found.triples == TRIPLES
    assert [row["value"] for row in found.rows] == [4.0, 1.5, 2.0, 5.0]
    assert [item["item_id"] for item in found.items] == ["20", "100"]
    loaded = found.loaded()
    assert loaded.users == ("7", "9", "10")
    assert loaded.items.tolist() == [1, 0, 1, 1]
    assert data_files(found.folder) == (found.folder / "interactions.parquet",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04....", "is a zip archive: unpack it"),
        (b"\xff\xfeu\x00s\x00", "neither text, JSON nor parquet"),
        (b"just one column\n1\n", "holds one value: name what separates its columns with --delimiter"),
        (b"a,b,c\n1,2,3\n", "Which column of .* says the user\\? Name it with --user: a, b, c\\.$"),
        (b"12,34,5\n1,2,3\n", "That first line looks like data: if the file has no header, name its columns with --columns"),
        (b"user,item\n\xe9,2\n", "is not UTF-8 .* say what it is with --encoding, such as latin-1"),
        (b"user,item,time,time\n1,2,3,4\n", "has two columns of the name time: rename one"),
        (b"PAR1 but no more", "cannot be read"),
        (b"\x1f\x8b\x08 no gzip", "cannot be unpacked"),
        (gzip.compress(b"user,item,time\n" + b"1,2,3\n" * 9999)[:-20], "cannot be (read|unpacked)"),
        (b"user,item\n,\n\n", "There is no interaction that can be used: the files have no rows"),
        (b"{broken\n", "holds no JSON objects"),
        (b"[1, 2", "begins like a JSON array but is none"),
        (b'user,item,time\na,"b,3\nc,d,4\n', "There is no interaction|a quotation mark opens a value that does not end|can't be used"),
    ],
)
def test_what_can_not_be_read_is_said_in_a_sentence(tmp_path: Path, text: bytes, reason: str) -> None:
    with pytest.raises(InteractionError, match=reason) as refused:
        made(tmp_path, written(tmp_path / "data", text))
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"timestamp": pa.array([1, 2], pa.duration("s"))}, r"dates, numbers or texts, and .* of type duration\[s\]"),
        ({"timestamp": pa.array([1, 2], pa.time32("s"))}, "holds values of type time32"),
        ({"timestamp": pa.array([{"at": 1}, {"at": 2}])}, "holds values of type struct"),
        ({"rating": pa.array([[1], [2]])}, "holds values of type list"),
        ({"userId": pa.array([[1], [2]])}, "holds values of type list.*: ids are texts or whole numbers"),
        ({"userId": pa.array([Decimal("1"), Decimal("2.5")])}, "has decimals in its column userId that are not whole numbers of 64 bits"),
        ({"userId": pa.array([b"a", b"\xff"])}, "userId .* not UTF-8"),
        ({"itemId": pa.array([b"a", b"\xff"]).view(pa.string())}, "data cannot be read: it has texts that are not UTF-8"),
        ({"kind": pa.array([{"at": 1}, {"at": 2}])}, "holds values of type struct"),
    ],
)
def test_columns_of_parquet_that_can_not_be_what_they_are_called(tmp_path: Path, columns: dict[str, pa.Array], reason: str) -> None:
    plain_columns = {"userId": pa.array([1, 2]), "itemId": pa.array([3, 4]), "timestamp": pa.array([5, 6]), "rating": pa.array([1.0, 2.0])}
    pq.write_table(pa.table(plain_columns | columns), tmp_path / "data")
    with pytest.raises(InteractionError, match=reason):
        made(tmp_path, tmp_path / "data")


def test_two_columns_of_parquet_of_one_name_and_an_encoding_that_is_none(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], [2], [3]], names=["user", "item", "user"]), tmp_path / "data")
    with pytest.raises(InteractionError, match="has two columns of the name user: rename one"):
        made(tmp_path, tmp_path / "data")
    for name in ("klingon", "hex"):
        with pytest.raises(InteractionError, match=f"There is no encoding '{name}' of text"):
            made(tmp_path, written(tmp_path / "data", CSV), text=TextOptions(encoding=name))
    assert made(tmp_path, written(tmp_path / "data", CSV.encode("utf-16")), text=TextOptions(encoding="utf-16")).triples == TRIPLES


@pytest.mark.parametrize("encodings", [("utf-8", "latin-1"), ("latin-1", "utf-8"), ("latin-1", "latin-1")])
def test_what_is_said_of_text_holds_for_all_tables_and_utf8_stays_what_it_is(tmp_path: Path, encodings: tuple[str, str]) -> None:
    data = written(tmp_path / "data", "zoé|thé\nzoé|café\n".encode(encodings[0]))
    about = written(tmp_path / "items", 'item|title\nthé|"Thé" vert\ncafé|"Moulu\n'.encode(encodings[1]))
    who = written(tmp_path / "users", "user,city\nzoé,Orléans\n".encode(encodings[1]))
    text = TextOptions(("user", "item"), delimiter="|", quotes=False, encoding="latin-1")
    found = made(tmp_path, data, items=about, users=who, text=text)
    assert [item["title"] for item in found.items] == ['"Moulu', '"Thé" vert']
    assert found.profiles == [{"user": "zoé", "city": "Orléans"}]
    assert found.triples == [("zoé", "thé", 0.0), ("zoé", "café", 1.0)]


def test_text_of_another_encoding_may_be_ascii_to_the_eye(tmp_path: Path) -> None:
    data = written(tmp_path / "data", "user,item\na,日本\n".encode("iso-2022-jp"))
    assert data.read_bytes().isascii()
    assert made(tmp_path, data, text=TextOptions(encoding="iso-2022-jp")).items == [{"item_id": "日本"}]


def test_a_table_of_items_without_a_header_is_refused_without_a_flag_that_it_has_not(tmp_path: Path) -> None:
    data, about = written(tmp_path / "data", CSV), written(tmp_path / "items", "20,5\n100,6\n")
    with pytest.raises(InteractionError, match="looks like data: the file needs a line with the names of its columns before it") as refused:
        made(tmp_path, data, items=about)
    assert "--columns" not in str(refused.value)


def test_one_object_with_a_field_for_each_item_is_refused_in_a_short_sentence(tmp_path: Path) -> None:
    """As LC-Rec's index is, and what many projects write of their items."""
    data = written(tmp_path / "data", CSV)
    about = written(tmp_path / "items.json", json.dumps({str(item): {"title": "A"} for item in range(20_000)}))
    for source, items in ((about, None), (data, about)):
        with pytest.raises(InteractionError, match=r"98, 99 and 19,900 more\. If these .* write a line for each of them") as refused:
            made(tmp_path, source, items=items)
        assert len(str(refused.value)) < 1000


def test_a_directory_of_two_forms_and_one_without_data_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "d/notes.md", "notes")
    with pytest.raises(InteractionError, match="holds no data"):
        made(tmp_path, tmp_path / "d")
    written(tmp_path / "d/a.csv", CSV)
    assert "these files are no data, or empty: notes.md" in made(tmp_path, tmp_path / "d").told
    written(tmp_path / "d/b.jsonl", JSONL)
    with pytest.raises(InteractionError, match=r"holds delimited text \(a.csv\) and JSON \(b.jsonl\)"):
        made(tmp_path, tmp_path / "d")
    written(tmp_path / "d/b.jsonl", "userId,thing\n1,2\n")
    with pytest.raises(InteractionError, match=r"b.jsonl has no column 'itemId', but the files before it have"):
        made(tmp_path, tmp_path / "d")


def test_empty_files_of_a_directory_are_told_and_refused_only_where_all_are(tmp_path: Path) -> None:
    """Spark writes a part without rows as a file without bytes, the first one too."""
    for name in ("part-00000.csv", "part-00002.csv"):
        written(tmp_path / "d" / name, "")
    with pytest.raises(InteractionError, match=r"All files of the directory .*d are empty\."):
        made(tmp_path, tmp_path / "d")
    written(tmp_path / "d/part-00001.csv", CSV)
    written(tmp_path / "d/part-00003.csv.gz", gzip.compress(b""))
    found = made(tmp_path, tmp_path / "d", items=tmp_path / "d")
    assert found.triples == TRIPLES
    assert found.told.count("d these files are no data, or empty: part-00000.csv, part-00002.csv, part-00003.csv.gz.") == 2


def test_odd_names_of_fields_and_times_beyond_every_calendar_spoil_nothing(tmp_path: Path) -> None:
    """Quotation marks and controls in names; of literals of Python, names that are no texts, and keys that nothing can be."""
    more = {'"quoted"': 1, "a\tb": 2}
    lines = [*(json.dumps(dict(zip(NAMES, row, strict=True)) | more) for row in ROWS), "{1.5: 2, 'userId': 3}", "{{}: 1}", '{"\\ud800": 1}']
    found = made(tmp_path, written(tmp_path / "data", "\n".join(lines)), keep=('"quoted"', "a\tb"), bad_lines=0.9)
    assert found.triples == TRIPLES
    assert found.rows[0]['attributes."quoted"'] == 1
    late = CSV + "7,20,1e300,1\n"
    assert len(made(tmp_path, written(tmp_path / "data", late), time_unit="seconds").triples) == len(TRIPLES) + 1


@pytest.mark.parametrize("odd", [b"zo\xe9", b"\\ud800"])
def test_lines_of_json_that_are_no_utf8_are_bad_where_that_is_wanted_and_fine_elsewhere(tmp_path: Path, odd: bytes) -> None:
    """Two ids of which each odd byte is replaced would be one."""
    line = b'{"userId": "%s", "itemId": "%s", "timestamp": 5, "note": "%s"}\n'
    data = written(tmp_path / "data", JSONL.encode() + line % (odd, b"100", b"") + line % (b"8", b"20", odd))
    with pytest.raises(InteractionError, match=r"1 of 6 lines .* line 5 of data: no UTF-8, .* Lines of JSON are UTF-8: convert"):
        made(tmp_path, data)
    assert sorted(made(tmp_path, data, bad_lines=0.5).triples) == sorted([*TRIPLES, ("8", "20", 5.0)])
    with pytest.raises(InteractionError, match="no UTF-8"):
        made(tmp_path, data, keep=("note",))
