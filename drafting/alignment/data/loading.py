"""Interactions from files: the paper's three files, JSONL events, parquet, or LC-Rec's lists of items.

Invariant: items become catalog indices while they are read; malformed lines and unknown items are refused with the file and the line.
"""

from array import array
from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from drafting.alignment.data.columns import TableBuilder
from drafting.alignment.data.details import ATTRIBUTES, CONTEXT, KIND, VALUE, no_kind
from drafting.alignment.data.hashes import file_hash
from drafting.alignment.data.inter_file import SUFFIX as INTER_SUFFIX
from drafting.alignment.data.inter_file import load_inter
from drafting.alignment.data.interactions import Interactions, Split, by_user, leave_one_out
from drafting.alignment.data.item_index import ItemIndex, MetNames
from drafting.alignment.data.lines import open_lines
from drafting.alignment.data.parquet import load_parquet
from drafting.alignment.data.profiles import PROFILE_FILES, load_profiles
from drafting.alignment.data.splits import SplitRule
from drafting.array_types import IntArray
from drafting.catalog.catalog import Catalog
from drafting.errors import InteractionError
from drafting.prompts.user_state import Scalar, Value
from drafting.undecodable import UNDECODABLE

SEQUENTIAL_FILES = ("sequential_train.txt", "sequential_valid.txt", "sequential_test.txt")
EVENTS_FILE = "interactions.jsonl"
PARQUET_FILE = "interactions.parquet"


class EventLine(msgspec.Struct, omit_defaults=True):
    """One line of `interactions.jsonl`.

    Attributes:
        timestamp: seconds since 1970 where prompts show the time; otherwise in any unit.
        kind, value, attributes: of the event, as requests bring them.
        context: what the request brought that this event answers.
    """

    user: str | int
    item: str | int
    timestamp: float
    kind: str | None = None
    value: float | None = None
    attributes: dict[str, Scalar | None] = {}
    context: dict[str, Value | None] = {}


def data_files(directory: Path) -> tuple[Path, ...]:
    """The files that `load_split` reads from a data directory.

    Raises:
        InteractionError: the directory has no interaction data, or two files of it.
    """
    if files := found_files(directory):
        return files
    raise InteractionError(
        f"{directory} holds no interaction data: it needs {', '.join(SEQUENTIAL_FILES)}, or {EVENTS_FILE}, or {PARQUET_FILE}, or a "
        f"file *{INTER_SUFFIX}. `atspeed prepare` makes such a directory of files in other forms."
    )


def found_files(directory: Path) -> tuple[Path, ...]:
    """The files that `load_split` reads from a data directory; none if it holds other data.

    Raises:
        InteractionError: it holds two of them.
    """
    sequential = tuple(directory / name for name in SEQUENTIAL_FILES)
    if all(path.is_file() for path in sequential):
        return sequential
    streams = [directory / name for name in (EVENTS_FILE, PARQUET_FILE) if (directory / name).is_file()]
    # LC-Rec's own files lie beside what was made of them.
    stream = _only(directory, streams or sorted(directory.glob(f"*{INTER_SUFFIX}")))
    return () if stream is None else (stream,)


def data_hashes(directory: Path) -> dict[str, str]:
    """The SHA-256 of every file that `load_split` reads, by name."""
    files = (*data_files(directory), profile_file(directory))
    return {path.name: file_hash(path) for path in files if path is not None}


def profile_file(directory: Path) -> Path | None:
    """The file of user profiles in a data directory, if there is one.

    Raises:
        InteractionError: there are two.
    """
    return _only(directory, [directory / name for name in PROFILE_FILES if (directory / name).is_file()])


def _only(directory: Path, found: list[Path]) -> Path | None:
    """The one file of a kind that a directory holds, if it holds any. Raises InteractionError where it holds several."""
    if len(found) > 1:
        raise InteractionError(f"{directory} holds both {found[0].name} and {found[1].name}: remove the one that is not to be used.")
    return found[0] if found else None


def load_split(directory: Path, catalog: Catalog, rule: SplitRule | None = None) -> Split:
    """Read a data directory: the paper's three files, which are already split, or one stream of interactions, split by `rule`
    (leave-one-out by default); and what the directory says of users.

    Raises:
        InteractionError: data is missing or malformed, or names an item that the catalog does not have.
    """
    files = data_files(directory)
    path = profile_file(directory)
    profiles = None if path is None else load_profiles(path)
    if len(files) == 1:
        stream = replace(load_stream(files[0], catalog), profiles=profiles)
        return leave_one_out(stream) if rule is None else rule(stream)
    if rule is not None and rule.label_kind is not None:
        raise InteractionError(no_kind(rule.label_kind, ()))
    return Split(*(replace(part, profiles=profiles) for part in load_parts(files, catalog)))


def load_whole(files: tuple[Path, ...], catalog: ItemIndex) -> Interactions:
    """Read all interactions of a data directory, of the paper's files those of each user one part behind the other.

    Args:
        files: as `found_files` finds them.

    Raises:
        InteractionError: as `load_stream` or `load_parts`.
    """
    if len(files) == 1:
        return load_stream(files[0], catalog)
    train, valid, test = load_parts(files, catalog)
    return train.followed_by(valid).followed_by(test)


def load_parts(files: tuple[Path, ...], catalog: ItemIndex) -> list[Interactions]:
    """Read the paper's files, a part of the split each.

    Raises:
        InteractionError: as `load_sequential`, or they list different users.
    """
    parts = [load_sequential(path, catalog) for path in files]
    for path, part in zip(files, parts, strict=True):
        if part.users != parts[0].users:
            raise InteractionError(
                f"{path} lists other users than {files[0]}: every file of a split must name the same users in the same order."
            )
    return parts


def load_stream(path: Path, catalog: ItemIndex) -> Interactions:
    """Read one of the files that hold all interactions: JSONL events, parquet, or LC-Rec's lists of items.

    Raises:
        InteractionError: it is malformed, or names an item that the catalog does not have.
    """
    return _LOADERS.get(path.suffix, load_events)(path, catalog)


def load_sequential(path: Path, catalog: ItemIndex) -> Interactions:
    """Read one of the paper's files: lines of `user item item …`, or only `user`.

    Items are numbered from 1 in these files and from 0 in the catalog: number n is the item `str(n - 1)`.

    Raises:
        InteractionError: a line is not made of numbers, or names a user twice or an item that the catalog does not have.
    """
    users: list[str] = []
    ends = array("q", [0])
    numbers = array("q")
    for line_number, line in open_lines(path, "The interactions"):
        user, _, rest = line.strip().partition(b" ")
        try:
            users.append(str(int(user)))
            numbers.extend(map(int, rest.split()))
        except (ValueError, OverflowError) as error:
            raise InteractionError(f"Line {line_number} of {path} should be numbers, a user and then items: {error}.") from error
        ends.append(len(numbers))
    if len(set(users)) != len(users):
        twice = next(user for user, count in Counter(users).items() if count > 1)
        raise InteractionError(f"{path} lists user {twice} twice: all items of a user stand in one line.")
    raw = np.frombuffer(numbers, np.int64) if numbers else np.empty(0, np.int64)
    return Interactions(tuple(users), np.array(ends, np.int64), _numbered_items(raw, catalog, path))


def _numbered_items(numbers: IntArray, catalog: ItemIndex, path: Path) -> npt.NDArray[np.int32]:
    distinct, inverse = np.unique(numbers, return_inverse=True)
    if distinct.size and distinct[0] < 1:
        raise InteractionError(f"{path} names item number {distinct[0]}, but these files count items from 1.")
    indices = catalog.indices_of([str(number - 1) for number in distinct.tolist()])
    if (missing := np.flatnonzero(indices < 0)).size:
        number = int(distinct[missing[0]])
        raise InteractionError(
            f"{path} names item number {number}, which is item {str(number - 1)!r} as these files count from 1, but the catalog has "
            "no such item."
        )
    return indices.astype(np.int32)[inverse.reshape(-1)]


def load_events(path: Path, catalog: ItemIndex) -> Interactions:
    """Read JSONL of `{"user", "item", "timestamp"}` in any order and sort each user's by time; equal times keep the order of the file.

    Raises:
        InteractionError: a line is malformed, or names an item that the catalog does not have.
    """
    decoder = msgspec.json.Decoder(EventLine)
    met = MetNames()
    index_of: dict[str, int | None] = {}
    rows, items, times = array("q"), array("i"), array("d")
    details = TableBuilder()
    for line_number, line in open_lines(path, "The interactions"):
        try:
            event = decoder.decode(line)
            _add_details(event, details, len(rows))
        except (*UNDECODABLE, InteractionError) as error:
            raise InteractionError(f"Line {line_number} of {path} is not an interaction: {str(error).rstrip('.')}.") from error
        if (item := str(event.item)) not in index_of:
            index_of[item] = catalog.index_of(item)
        index = index_of[item]
        if index is None:
            raise InteractionError(f"Line {line_number} of {path} names item {item!r}, but the catalog has no such item.")
        rows.append(met.index_of(str(event.user)))
        items.append(index)
        times.append(event.timestamp)
    columns = details.columns(len(rows))
    return by_user(tuple(met.names), np.array(rows, np.int64), np.array(items, np.int32), np.array(times, np.float64), columns)


def _add_details(event: EventLine, details: TableBuilder, row: int) -> None:
    for name, value in ((KIND, event.kind), (VALUE, event.value)):
        if value is not None:
            details[name].add(row, value)
    for prefix, values in ((ATTRIBUTES, event.attributes), (CONTEXT, event.context)):
        for name, each in values.items():
            details[prefix + name].add(row, each)


_LOADERS = {".parquet": load_parquet, ".json": load_inter}
