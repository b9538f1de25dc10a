"""Lists as parquet: all that their JSON lines say, a few lines at a time."""

import io

import msgspec
import pyarrow.parquet as pq
import pytest

from server.lists.lines import usage_lines
from server.offline import tables
from server.offline.tables import write_table
from server.schemas.usage import UsageAnswer
from verification.result import Usage


def table_of(*rows: dict[str, object]) -> pq.ParquetFile:
    target = io.BytesIO()
    write_table([msgspec.json.encode(row) for row in rows], target)
    target.seek(0)
    return pq.ParquetFile(target)


def test_every_field_of_usage_has_a_column() -> None:
    used = {"beam": 4, "children": 3, "items": 2, "last": 1}
    usage = usage_lines(Usage(41, 8, 2, 1, drafted_nodes=9, used_by=used, accepted_depths=(1,), plan="auto:beam", rounds=2))
    table = table_of({"user_id": 1, "items": [], "usage": usage})
    (row,) = table.read().to_pylist()
    assert {name: value for name, value in row["usage"].items() if value is not None} == usage
    assert {field.name for field in table.schema_arrow.field("usage").type} == {*UsageAnswer.model_fields}


def test_lists_are_held_in_memory_by_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"user_id": str(user), "items": [{"item_id": f"i{item}", "rank": item + 1} for item in range(user)]} for user in range(30)]
    monkeypatch.setattr(tables, "_BYTES", 1000)
    sizes: list[int] = []
    decode = msgspec.json.decode

    def note(line: bytes) -> object:
        sizes.append(len(line))
        return decode(line)

    monkeypatch.setattr(tables.msgspec.json, "decode", note)
    table = table_of(*rows)
    assert [row["user_id"] for row in table.read().to_pylist()] == [row["user_id"] for row in rows]
    counts = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
    for count in counts[:-1]:
        assert sum(sizes[: count - 1]) < 1000 <= sum(sizes[:count])
        del sizes[:count]
    assert len(counts) > 5
