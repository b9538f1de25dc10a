"""Lists as parquet: the fields of their JSON lines as columns, the same ones whatever the lists hold."""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from drafting.errors import SetupError, first_line
from server.offline.made import Written

# Lines that are held in memory at a time, as Python objects that take ten times as much; long lists are few.
_BYTES = 16 << 20


class TableError(SetupError):
    """Tables that can't be written or read; the message is a sentence."""


def check_tables() -> None:
    """
    Raises:
        TableError: pyarrow, which writes tables, is not installed.
    """
    if find_spec("pyarrow") is None:
        raise TableError("Writing parquet needs pyarrow: pip install 'atspeed-server[train]', or write JSONL.")


def write_table(lines: Iterable[bytes], target: BinaryIO | Path) -> None:
    """Write lists, given as JSON lines, as one table.

    Raises:
        OSError: it can't be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    with pq.ParquetWriter(target, schema) as writer:
        for rows in _batches(lines):
            writer.write_table(pa.Table.from_pylist(rows, schema))


def read_written(table: BinaryIO, name: str) -> Iterator[Written]:
    """What the rows of a table of lists tell of whether there is a list.

    Args:
        name: of the table, for people.

    Raises:
        TableError: it is no table of lists.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(table, columns=[*Written.__struct_fields__]).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TableError(f"The lists of {name} can't be read: {first_line(error)}.") from error
    for row in rows:
        yield Written(**row)


def _batches(lines: Iterable[bytes]) -> Iterator[list[dict[str, Any]]]:
    rows, size = [], 0
    for line in lines:
        rows.append(_row(line))
        size += len(line)
        if size >= _BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _row(line: bytes) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.json.decode(line)
    # A column has one type, and ids may be texts in one line and numbers in the next.
    return row | {"user_id": str(row["user_id"])} if "user_id" in row else row


def _schema() -> Any:
    import pyarrow as pa

    item = {
        "item_id": pa.string(),
        "identifier": pa.list_(pa.string()),
        "title": pa.string(),
        "score": pa.float64(),
        "rank": pa.int32(),
        "blend_score": pa.float64(),
        "source": pa.string(),
    }
    counts = ("prompt_tokens", "cached_tokens", "target_forwards", "draft_forwards", "accepted_steps", "drafted_nodes")
    others = dict.fromkeys(("thought_tokens", "candidates", "rounds"), pa.int64())
    drafts = pa.struct(dict.fromkeys(("beam", "children", "items", "last"), pa.int64()).items())
    usage = dict.fromkeys(counts, pa.int64()) | {"plan": pa.string(), "used_by": drafts} | others
    columns = {
        "user_id": pa.string(),
        "items": pa.list_(pa.struct(item)),
        "error": pa.string(),
        "note": pa.string(),
        "file": pa.string(),
        "line": pa.int64(),
        "verification": pa.string(),
        "seed": pa.int64(),
        "thought": pa.string(),
        "usage": pa.struct(usage),
    }
    return pa.schema(columns.items())
