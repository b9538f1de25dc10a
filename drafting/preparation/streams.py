"""Interactions of a data directory as training reads them, whatever their items, for those who store histories.

Invariant: training and this see the same events, with kinds, values and all attributes, in columns of their own or in objects.
"""

from pathlib import Path

import numpy as np

from drafting.alignment.data.columns import Column
from drafting.alignment.data.details import ATTRIBUTES, KIND, VALUE, EventDetails
from drafting.alignment.data.inter_file import SUFFIX as INTER_SUFFIX
from drafting.alignment.data.item_index import MetNames
from drafting.alignment.data.loading import EVENTS_FILE, PARQUET_FILE, found_files, load_whole
from drafting.alignment.data.parquet import COLUMNS
from drafting.preparation.events import Events
from drafting.preparation.rows import Tell
from drafting.preparation.run import with_dates
from drafting.preparation.tables import Table

_TABLES = (EVENTS_FILE, PARQUET_FILE)


def stream_files(source: Path) -> tuple[Path, ...]:
    """The files of a data directory that hold its interactions, or `source` if it is such a file; none if it is other data.

    Raises:
        InteractionError: a directory holds two kinds of them, or the file can't be read.
    """
    if source.is_dir():
        return found_files(source)
    known = source.name.endswith(INTER_SUFFIX) or (source.name in _TABLES and set(COLUMNS) <= set(Table.open(source).names))
    return (source,) if known else ()


def stream_columns(files: tuple[Path, ...]) -> tuple[str, ...]:
    """The names of the columns of what `stream_files` found; lists of items have none.

    Raises:
        InteractionError: it can't be read.
    """
    return Table.open(files[0]).names if files and files[0].name in _TABLES else ()


def read_stream(files: tuple[Path, ...], time_unit: str, tell: Tell) -> Events:
    """Read all interactions, with times in seconds; where there are none, an event's time is its place in the list of its user.

    Args:
        files: as `stream_files` finds them.
        tell: told the unit of the times.

    Raises:
        InteractionError: a line is malformed, or a value is none that a prompt can show.
    """
    met = MetNames()
    found = load_whole(files, met)
    details = found.details or EventDetails(np.arange(len(found)), {})
    columns = {name: Column(column.codes[details.rows], column.values) for name, column in details.columns.items()}
    values = columns.get(VALUE)
    # The last place is that of -1.
    numbers = None if values is None else np.array([*values.values, np.nan], np.float64)[values.codes]
    kept = {name: column for name, column in columns.items() if name == KIND or name.startswith(ATTRIBUTES)}
    users = found.owners
    # Counted for each user anew, so that a list that has grown, and those behind it, keep the times of what was there before.
    times = (np.arange(len(found)) - found.offsets[users]).astype(np.float64) if found.timestamps is None else found.timestamps
    events = Events(found.users, met.names, users.astype(np.int32), found.items, times, values=numbers, details=kept)
    if found.timestamps is None:
        tell(f"There are no times in {', '.join(path.name for path in files)}, so the order of each user's list is the order of time.")
        return events
    return with_dates(events, COLUMNS[2], time_unit, tell)[0]
