"""The steps of a preparation: read, choose, look up, write.

Invariant: whatever is left out is counted and told, and nothing is written before all has been read.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from drafting.alignment.data.details import KIND
from drafting.alignment.data.hashes import file_hash
from drafting.array_types import BoolArray
from drafting.catalog.attributes import TITLE
from drafting.catalog.json_values import listed
from drafting.errors import InteractionError
from drafting.preparation.columns import NO_COLUMN, Roles, found_roles, shown_names
from drafting.preparation.core import k_core, last_of_same, of_pairs
from drafting.preparation.events import EventReader, Events
from drafting.preparation.layouts import Layout, Part, found_layout
from drafting.preparation.names import whole, with_whole_numbers
from drafting.preparation.order import order_of_ids
from drafting.preparation.rows import BadLines, Tell
from drafting.preparation.settings import ALL, FIRST, PrepareSettings
from drafting.preparation.subjects import Subject, look_up
from drafting.preparation.summary import Summary
from drafting.preparation.tables import PLAIN, Table, tell_no_data
from drafting.preparation.times import AUTO, found_unit, in_seconds, strange
from drafting.preparation.writing import check_out, whole_directory, write_events, write_items, write_profiles, write_record


@dataclass(frozen=True)
class Read:
    """How interactions were read."""

    roles: Roles
    paths: tuple[Path, ...]
    bad: BadLines
    time_unit: str


def prepare(settings: PrepareSettings, tell: Tell) -> Summary:
    """Make a data directory.

    Args:
        tell: told what was found and decided, a sentence at a time.

    Raises:
        InteractionError: the data can't be used, or nothing is left of it.
    """
    check_out(settings.out, settings.overwrite)
    layout = layout_of(settings)
    events, read = read_events(settings, layout, tell)
    events = _ordered(_chosen(events, settings, tell))
    if doubt := order_of_ids(events, timed=read.roles.time is not None):
        tell(doubt)
    parts = (None, None) if layout is None else (layout.items, layout.users)
    items = look_up(Subject.items(settings), settings.items or parts[0], events.item_names, read.roles.item, settings, tell)
    users = look_up(Subject.users(settings), settings.users or parts[1], events.user_names, read.roles.user, settings, tell)
    summary = Summary.of(events, settings.split, sum(TITLE in known for known in items.facts.values()))
    with whole_directory(settings.out) as folder:
        write_events(folder, events)
        write_items(folder, events.item_names, items.facts)
        if users.facts:
            write_profiles(folder, events.user_names, users.facts)
        tell("Hashing the sources.")
        write_record(folder, _record(settings, layout, read, (*items.paths, *users.paths), summary))
    return summary


def layout_of(settings: PrepareSettings) -> Layout | None:
    """The known layout of the source, unless the caller says how its text is written."""
    return found_layout(settings.source) if settings.text == PLAIN else None


def read_events(settings: PrepareSettings, layout: Layout | None, tell: Tell, kept_ids: Collection[str] = ()) -> tuple[Events, Read]:
    """Read interactions as they stand in the source, with times in seconds.

    Args:
        kept_ids: columns among those to keep that hold ids.

    Raises:
        InteractionError: they can't be read.
    """
    part = Part(settings.source, settings.text) if layout is None else layout.interactions
    if layout is not None:
        beside = [each.path.name for each in (layout.items, layout.users) if each is not None]
        tell(f"{settings.source} is {layout.name}{f', with {listed(beside)}' if beside else ''}.")
    table = Table.open(part.path, part.options)
    tell_no_data(part.path, table, tell)
    said = {**({} if layout is None else layout.roles), **{role: name for role, name in settings.columns.items() if name is not None}}
    names = table.names_with({*settings.keep, *said.values()} - {NO_COLUMN})
    roles = found_roles(part.path, names, said)
    unknown = [name for name in settings.keep if name not in names]
    if unknown:
        raise InteractionError(f"{part.path} has no column {unknown[0]!r} to keep: it has {shown_names(names)}.")
    if settings.min_rating is not None and roles.value is None:
        raise InteractionError(f"--min-rating needs a column of ratings: name it with --rating: {shown_names(names)}.")
    tell(_told(part.path, roles, names, settings.keep))
    bad = BadLines(settings.bad_lines, tell=tell)
    wanted = tuple(dict.fromkeys((*roles.columns, *settings.keep)))
    reader = EventReader(roles, settings.keep, bad, settings.time_format, kept_ids)
    events = reader.read(table.read(wanted, bad, scalar=settings.keep))
    bad.check()
    if bad.bad:
        tell(f"{bad.bad:,} of {bad.lines:,} lines can't be used and are left out: {bad.described}.")
    events = _with_whole_numbers(events, roles, tell)
    events, unit = with_dates(events, roles.time, settings.time_unit, tell)
    return events, Read(roles, table.paths, bad, unit)


def _with_whole_numbers(events: Events, roles: Roles, tell: Tell) -> Events:
    """The events with names that are whole numbers as these, so that users and items are the same in files where they are floats."""
    user_names, users, user_floats = with_whole_numbers(events.user_names, events.users)
    item_names, items, item_floats = with_whole_numbers(events.item_names, events.items)
    for column, floats in ((roles.user, user_floats), (roles.item, item_floats)):
        if floats:
            tell(f"{len(floats):,} ids of the column {column} are written like {floats[0]} and mean whole numbers: {whole(floats[0])}.")
    return replace(events, user_names=user_names, users=users, item_names=item_names, items=items)


def with_dates(events: Events, column: str | None, time_unit: str, tell: Tell) -> tuple[Events, str]:
    """The events with times in seconds, if they are dates, and the name of the unit that they had.

    Args:
        column: that of the times.

    Raises:
        InteractionError: the times have no such unit.
    """
    if column is None:
        tell("There is no column of times, so the order of the rows is the order of time.")
        return events, "order of rows"
    if events.dated:
        if time_unit != AUTO:
            raise InteractionError(f"The column {column} holds dates, not numbers: leave out --time-unit.")
        return events, "dates"
    unit = found_unit(events.times, time_unit)
    tell(f"The times ({column}) {unit.sentence}; if that is wrong, say --time-unit.")
    if odd := strange(events.times, unit):
        tell(f"{odd:,} of the times lie before 1973 or after 5138 then, and stay where they are: are they of another unit?")
    return replace(events, times=in_seconds(events.times, unit), dated=unit.dated), unit.name


def _told(path: Path, roles: Roles, names: Sequence[str], keep: Sequence[str]) -> str:
    parts = {"user": roles.user, "item": roles.item, "time": roles.time, "value": roles.value, "kind": roles.kind}
    others = [name for name in names if name not in roles.columns and name not in keep]
    rest = f" Left out: {listed(others)} (--keep NAME keeps one)." if others else ""
    return f"{path.name}: {', '.join(f'{role} = {name}' for role, name in parts.items() if name is not None)}.{rest}"


def _chosen(events: Events, settings: PrepareSettings, tell: Tell) -> Events:
    """The events that stay."""

    def keep(found: Events, kept: BoolArray, sentence: str) -> Events:
        if left_out := int(len(kept) - np.count_nonzero(kept)):
            tell(f"{left_out:,} interactions are left out: {sentence}.")
        if not kept.any():
            raise InteractionError(f"No interaction is left: {sentence}.")
        return found.where(kept)

    if settings.min_rating is not None and events.values is not None:
        rated = events.values >= settings.min_rating
        events = keep(events, rated, f"their rating is below {settings.min_rating:g}, or they have none")
    kinds = events.details.get(KIND)
    same = last_of_same(events.users, events.items, events.times, None if kinds is None else kinds.codes)
    events = keep(events, same, "another of the same user, item, time and kind comes behind them")
    if settings.repeats != ALL:
        one = of_pairs(events.users, events.items, events.times, first=settings.repeats == FIRST)
        events = keep(events, one, f"of each user with an item the {settings.repeats} stays")
    core, rounds = k_core(events.users, events.items, settings.core)
    return keep(events, core, f"--core {settings.core} keeps users and items with as many, after {rounds} rounds")


def _ordered(events: Events) -> Events:
    """The events by user and time, with the names that are met in order: numbers as numbers, else texts as texts."""
    user_names, users = _met(events.user_names, events.users)
    item_names, items = _met(events.item_names, events.items)
    order = np.lexsort([events.times, users])
    met = replace(events, user_names=user_names, users=users, item_names=item_names, items=items)
    return met.where(order)


def _met(names: Sequence[str], numbers: Any) -> tuple[list[str], Any]:
    found = np.unique(numbers).tolist()
    numeric = all(names[number].isdecimal() for number in found)
    found.sort(key=lambda number: (int(names[number]) if numeric else 0, names[number]))
    place = np.zeros(len(names), np.int32)
    place[found] = np.arange(len(found), dtype=np.int32)
    return [names[number] for number in found], place[numbers]


def _record(settings: PrepareSettings, layout: Layout | None, read: Read, more: Sequence[Path], summary: Summary) -> dict[str, Any]:
    """The contents of `prepare.json`."""
    sources = [{"path": str(path), "bytes": path.stat().st_size, "sha256": file_hash(path)} for path in (*read.paths, *more)]
    return {
        "made_by": "atspeed prepare",
        "layout": None if layout is None else layout.name,
        "sources": sources,
        "columns": {**asdict(read.roles), "keep": list(settings.keep)},
        "time_unit": read.time_unit,
        "min_rating": settings.min_rating,
        "core": settings.core,
        "repeats": settings.repeats,
        "lines": read.bad.lines,
        "bad_lines": read.bad.bad,
        "split": settings.split,
        "counts": asdict(summary),
    }
