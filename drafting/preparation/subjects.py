"""Items and users, and what is known of them: the table that says it, the columns of it that are kept, and what is told of both.

Invariant: items and users differ by their `Subject` alone, and whatever is left out of their tables is told.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from drafting.alignment.data.fact_limits import unusable_profile, unusable_value
from drafting.alignment.data.profiles import USER as PROFILE_USER
from drafting.catalog.attributes import TITLE
from drafting.catalog.item_list import ITEM_KEY, RESERVED
from drafting.catalog.json_values import MAX_ATTRIBUTES, listed, too_many, unusable
from drafting.errors import InteractionError, quoted
from drafting.preparation.columns import ITEM, USER, key_column, shown_names
from drafting.preparation.facts import Facts, FactTable, as_they_stand, keep_free, read_facts
from drafting.preparation.layouts import Part
from drafting.preparation.rows import BadLines, Tell
from drafting.preparation.settings import PrepareSettings
from drafting.preparation.shapes import TableShape, found_shape
from drafting.preparation.tables import Table, tell_no_data

# Of the objects of one table: each row has a place for each of them.
_MOST_FIELDS = 10 * MAX_ATTRIBUTES


@dataclass(frozen=True)
class Subject:
    """Items or users, as those of whom something is known.

    Attributes:
        role: `ITEM` or `USER`.
        key: the column of their names that the caller names; None to find it.
        title: the column of titles that the caller names; None to find it, and for users.
        chosen: the columns that are kept; empty for all.
        texts: names of what is a text, whatever it looks like.
        reserved: names that the lines of their file have for themselves.
        taker: what takes the values, as a sentence calls it.
        refusal: why it does not take a value, as of `read_facts`.
        whole_refusal: why it does not take all that is known of one together, as the rest of a sentence that begins with it; None if it
            does. Where there is no such function, it takes whatever holds nothing but values that it takes.
    """

    role: str
    key: str | None
    title: str | None
    chosen: tuple[str, ...]
    texts: tuple[str, ...]
    reserved: tuple[str, ...]
    taker: str
    refusal: Callable[[Any], str | None]
    whole_refusal: Callable[[Facts], str | None] | None = None

    @classmethod
    def items(cls, settings: PrepareSettings) -> "Subject":
        """The items, whose facts become attributes of the catalog."""
        return cls(
            role=ITEM,
            key=settings.item_key,
            title=settings.title,
            chosen=settings.item_columns,
            texts=(TITLE,),
            reserved=(ITEM_KEY, *RESERVED),
            taker="catalog",
            refusal=unusable,
        )

    @classmethod
    def users(cls, settings: PrepareSettings) -> "Subject":
        """The users, whose facts become their profiles."""
        return cls(
            role=USER,
            key=settings.user_key,
            title=None,
            chosen=settings.user_columns,
            texts=(),
            reserved=(PROFILE_USER,),
            taker="profile",
            refusal=unusable_value,
            whole_refusal=unusable_profile,
        )


@dataclass(frozen=True)
class Known:
    """What is known of a subject.

    Attributes:
        facts: by item (user), what is known of it.
        paths: the files that say it.
    """

    facts: Mapping[str, Facts] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()


def look_up(subject: Subject, given: Path | Part | None, names: Sequence[str], column: str, settings: PrepareSettings, tell: Tell) -> Known:
    """Look up what a table says of those who are met.

    Args:
        given: the table; None for none.
        names: of all items (users) that are met by interactions.
        column: the column of the interactions that they stand in.
        tell: told what was found and left out, a sentence at a time.

    Raises:
        InteractionError: the table can't be used.
    """
    if given is None:
        return Known()
    role, chosen = subject.role, subject.chosen
    part = given if isinstance(given, Part) else Part(given, replace(settings.text, names=()))
    table = _opened(part)
    tell_no_data(part.path, table, tell)
    key = key_column(part.path, table.names, subject.key, role, column)
    shape = _shape(subject, part.path, table, key, tell)
    bad = BadLines(settings.bad_lines, tell=tell)
    find_types = not (table.typed or shape.has_types)
    make = shape.make or as_they_stand
    known = read_facts(table, key, names, bad, make, shape.columns, texts=subject.texts, find_types=find_types, refusal=subject.refusal)
    bad.check()
    if nothing := [name for name in chosen if name not in (key, *known.names, shape.title)]:
        tell(f"No {role} has {listed(nothing)}, which --{role}-columns names.")
    renamed = keep_free(known, subject.reserved)
    if len(known.names) > MAX_ATTRIBUTES:
        raise _too_many(subject, len(known.names))
    _check_whole(subject, known)
    tell(f"{part.path.name}: {role} = {key}; known of {len(known.facts):,} of {len(names):,} {role}s: {listed(known.names)}.")
    for name, other in renamed.items():
        tell(f"The column {name} of {part.path.name} is called {other} now: {name} means something else in the files of {role}s.")
    _tell_left_out(subject, known, bad, tell)
    return Known(known.facts, table.paths)


def _shape(subject: Subject, path: Path, table: Table, key: str, tell: Tell) -> TableShape:
    """How rows of a table are read, with the chosen columns; what it leaves out by itself is told."""
    title, chosen = subject.title, subject.chosen
    is_known = subject.role == ITEM or ":" in key
    shape = found_shape(table.names, key, title, has_more=table.is_json) if is_known else TableShape(has_types=False)
    named = (*([title] if title else []), *(() if shape.has_types else chosen))
    there = table.names_with({*named, *chosen})
    wrong = next((name for name in named if name not in there), None)
    if wrong is not None:
        raise InteractionError(f"{path} has no column {wrong!r}: it has {shown_names(there)}.")
    if (counts := [name for name in shape.counts if name in there]) and not chosen:
        reason = "they count what is held out, too; --item-columns keeps what it names"
        tell(f"Of {path.name}, {listed(counts)} are left out: {reason}.")
    others = [name for name in there if name != key]
    left = [] if chosen or not shape.columns else [name for name in others if name not in shape.columns]
    if left:
        tell(f"Left out of {path.name}: {listed(left)} (--item-columns keeps what it names).")
    kept = shape.kept(chosen, others)
    if not kept.columns and len(table.all_names) > max(_MOST_FIELDS, len(table.names)):
        raise _too_many(subject, len(table.all_names) - 1)
    if kept.title not in (None, TITLE) and TITLE in {*(kept.columns or table.all_names)} - {key}:
        tell(f"Left out of {path.name}: {TITLE}, as {kept.title} holds the titles.")
    return kept


def _too_many(subject: Subject, names: int) -> InteractionError:
    sentence = too_many(names, f"The {subject.role}s", subject.role)
    return InteractionError(f"{sentence} Choose some with --{subject.role}-columns.")


def _opened(part: Part) -> Table:
    """A table; what separates its columns may be said of the interactions alone."""
    try:
        return Table.open(part.path, part.options)
    except InteractionError:
        return Table.open(part.path, replace(part.options, delimiter=None))


def _check_whole(subject: Subject, known: FactTable) -> None:
    """Refuse facts that servers would refuse as a whole, before a target learns from them."""
    if subject.whole_refusal is None:
        return
    for name, facts in known.facts.items():
        if reason := subject.whole_refusal(facts):
            raise InteractionError(
                f"The {subject.taker} of {subject.role} {quoted(name)} could not be stored: it {reason}. Choose some columns with "
                f"--{subject.role}-columns."
            )


def _tell_left_out(subject: Subject, known: FactTable, bad: BadLines, tell: Tell) -> None:
    """Say which rows and values of a table were left out."""
    if bad.bad:
        tell(f"{bad.bad:,} of {bad.lines:,} lines can't be used and are left out: {bad.described}.")
    if known.twice:
        tell(f"{known.twice:,} rows are left out: their {subject.role} came before.")
    if known.unusable:
        tell(f"{known.unusable:,} values are left out, as no {subject.taker} takes them: the first {known.reason}.")
