"""Writing a data directory.

Invariant: a directory that is there is whole. All is written to a new directory beside it and moved with one rename. What was there before
is replaced only if this command made it, and it stays there, under some name, until the new directory is in its place.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from drafting.alignment.data.arrow_values import arrow_values
from drafting.alignment.data.details import VALUE
from drafting.alignment.data.loading import PARQUET_FILE
from drafting.alignment.data.profiles import PROFILE_FILES, USER
from drafting.alignment.data.record import ITEMS_FILE, RECORD_FILE
from drafting.cache import takes_directory
from drafting.catalog.item_list import ITEM_KEY
from drafting.errors import InteractionError
from drafting.preparation.events import Events
from drafting.preparation.facts import Facts

_ROWS_AT_ONCE = 1 << 20


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse a directory that can't be written, before anything is read for it.

    Raises:
        InteractionError: it is there and is not to be replaced, or was made by something else, or nothing can be written beside it or
            moved to it.
    """
    parent = out.absolute().parent
    if not parent.is_dir():
        raise InteractionError(f"There is no directory {parent} to write {out.name} to.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if not (out / RECORD_FILE).is_file():
            raise InteractionError(f"{out} already exists and was not made by `atspeed prepare`: choose another name.")
        if not overwrite:
            raise InteractionError(f"{out} already exists: choose another name, or pass --overwrite to replace it and all that is in it.")
    if not takes_directory(out):
        raise InteractionError(f"No directory can be moved to {out}, as is done when it is whole: name one in it.")
    try:
        with TemporaryDirectory(prefix=f".{out.name}.new-", dir=parent):
            pass
    except OSError as error:
        raise InteractionError(f"{out} cannot be written: {error.strerror or error}.") from error


@contextmanager
def whole_directory(out: Path) -> Iterator[Path]:
    """A directory to write to, which becomes `out` if the block ends without an error and is gone otherwise.

    What a killed process leaves behind is `.NAME.new-…`, and in the moment between two renames `.NAME.old-…/NAME`, what was there before.
    """
    out = out.absolute()
    # Both are names that nothing has: only what was made here is ever deleted.
    with TemporaryDirectory(prefix=f".{out.name}.new-", dir=out.parent) as holder:
        building = Path(holder) / out.name
        building.mkdir()
        yield building
        if not out.exists():
            building.rename(out)
            return
        old = Path(mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
        try:
            out.rename(old / out.name)
            building.rename(out)
        finally:
            if not out.exists():
                (old / out.name).rename(out)
            shutil.rmtree(old, ignore_errors=True)


def write_events(folder: Path, events: Events) -> None:
    """Write interactions as `interactions.parquet`, in their order."""
    names = {"user": (events.users, _dictionary(events.user_names)), "item": (events.items, _dictionary(events.item_names))}
    details = {name: (column.codes, *arrow_values(column)) for name, column in events.details.items()}
    notes = {name: metadata for name, (_, _, metadata) in details.items()}
    with tqdm(total=len(events), desc="writing", unit="row", unit_scale=True) as bar:
        writer: Any = None
        try:
            for start in range(0, max(len(events), 1), _ROWS_AT_ONCE):
                rows = slice(start, start + _ROWS_AT_ONCE)
                columns = {name: _encoded(codes[rows], values) for name, (codes, values) in names.items()}
                columns["timestamp"] = pa.array(events.times[rows])
                if events.values is not None:
                    columns[VALUE] = pa.array(events.values[rows], from_pandas=True)
                columns |= {name: _encoded(codes[rows], values) for name, (codes, values, _) in details.items()}
                schema = pa.schema([pa.field(name, column.type, metadata=notes.get(name)) for name, column in columns.items()])
                table = pa.table(columns, schema)
                writer = writer or pq.ParquetWriter(folder / PARQUET_FILE, table.schema)
                writer.write_table(table)
                bar.update(len(table))
        finally:
            if writer is not None:
                writer.close()


def write_items(folder: Path, names: Sequence[str], facts: Mapping[str, Facts]) -> None:
    """Write the items, a line each, as `items.jsonl`."""
    _write_lines(folder / ITEMS_FILE, ({ITEM_KEY: name, **facts.get(name, {})} for name in names))


def write_profiles(folder: Path, names: Sequence[str], facts: Mapping[str, Facts]) -> None:
    """Write what is known of users, a line for each of whom something is, as `profiles.jsonl`."""
    _write_lines(folder / PROFILE_FILES[0], ({USER: name, **facts[name]} for name in names if facts.get(name)))


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write what was read and decided, as `prepare.json`."""
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_lines(path: Path, lines: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _dictionary(names: Sequence[str]) -> Any:
    return pa.array(names, pa.large_string())


def _encoded(codes: npt.NDArray[np.int32], values: Any) -> Any:
    """A column of values by number; -1 has none. Only those that are met are in it: parquet keeps all of them for each part of a file."""
    met, places = np.unique(codes, return_inverse=True)
    # -1 comes first, and stays what it is.
    numbers = places.astype(np.int32) - np.int32(np.count_nonzero(met < 0))
    return pa.DictionaryArray.from_arrays(pa.array(numbers, mask=codes < 0), values.take(pa.array(met[met >= 0])))
