"""What is known of items and of users: rows of any table, as values that catalogs and profiles take.

Invariant: only rows of items (users) that are met by interactions are kept, so a catalog of the whole shop costs no memory; a text is taken
for a number only where all texts of its column are numbers, none of them with a zero in front, as codes have.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from drafting.preparation.names import whole
from drafting.preparation.numbers import is_number, number_of
from drafting.preparation.rows import BadLines
from drafting.preparation.tables import Table

_LISTS = re.compile(r"genres?|categor(y|ies)|tags?|labels?|topics?|keywords?", re.IGNORECASE)
_LIST_SIGN = "|"

Facts = dict[str, Any]
# Makes facts of a row as it stands in its file.
Shape = Callable[[Mapping[str, Any]], Facts]


@dataclass
class FactTable:
    """What is known, by name.

    Attributes:
        facts: by item (user), what is known of it.
        rows: number of rows read.
        twice: rows that were left out, because one of the same name came before.
        unusable: values that were left out, because no catalog (no profile of a user) takes them.
        reason: why the first of these is not taken.
    """

    facts: dict[str, Facts] = field(default_factory=dict)
    rows: int = 0
    twice: int = 0
    unusable: int = 0
    reason: str = ""

    @property
    def names(self) -> list[str]:
        """Names of all that is known, in the order in which they were met."""
        return list(dict.fromkeys(name for known in self.facts.values() for name in known))


def read_facts(
    table: Table,
    key: str,
    wanted: Iterable[str],
    bad: BadLines,
    shape: Shape,
    columns: Sequence[str],
    *,
    texts: Sequence[str] = (),
    find_types: bool,
    refusal: Callable[[Any], str | None],
) -> FactTable:
    """Read what a table knows.

    Args:
        key: the column of the names.
        wanted: the names of whom something is to be known.
        shape: makes what is known of a row.
        columns: those that are read; all where none is named.
        texts: names of what is a text, whatever it looks like, such as the title `1984`.
        find_types: whether numbers and lists are found among texts.
        refusal: why a value is not taken, as the rest of a sentence that begins with it; None for one that is.

    Raises:
        InteractionError: the table can't be read.
    """
    known, needed = FactTable(), frozenset(wanted)
    read = [key, *(name for name in (columns or table.all_names) if name != key)]
    for values in table.records(read, bad):
        known.rows += 1
        name = _name(values[0], needed)
        if name not in needed:
            continue
        if name in known.facts:
            known.twice += 1
            continue
        row = dict(zip(read, values, strict=True))
        known.facts[name] = _usable(shape(row), known, texts, refusal)
    if find_types:
        _find_types(known.facts, texts)
    return known


def keep_free(known: FactTable, reserved: Sequence[str]) -> dict[str, str]:
    """Rename what bears a name that the lines of a file have for themselves, such as that of the id.

    Returns:
        by the name that it had, the one that it has now.
    """
    taken, renamed = set(known.names), dict[str, str]()
    for name in reserved:
        holders = [facts for facts in known.facts.values() if name in facts]
        if not holders:
            continue
        other = f"{name}_"
        while other in taken:
            other += "_"
        taken.add(other)
        renamed[name] = other
        for facts in holders:
            facts[other] = facts.pop(name)
    return renamed


def as_they_stand(row: Mapping[str, Any]) -> Facts:
    """All columns of a row but the first, the key."""
    return {name: row[name] for name in list(row)[1:]}


def _name(value: Any, wanted: frozenset[str]) -> str:
    # Hive and Impala say nothing of their texts being texts.
    text = (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip()
    return text if text in wanted else whole(text)


def _usable(facts: Facts, known: FactTable, texts: Sequence[str], refusal: Callable[[Any], str | None]) -> Facts:
    """The facts that have a value that is taken."""
    found = {}
    for name, value in facts.items():
        plain = plain_value(value)
        if plain is None:
            continue
        if name in texts:
            plain = _as_text(plain)
        if reason := "is a list or an object, not a text" if plain is None else refusal(plain):
            known.unusable += 1
            known.reason = known.reason or f"{name} {reason}"
        else:
            found[name] = plain
    return found


def _as_text(value: Any) -> str | None:
    """A value as a text, a whole number without the `.0` that pandas writes where some are missing; None for a list or an object."""
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case int() | float():
            return str(value)
    return None


def plain_value(value: Any) -> Any:
    """A value of JSON for one of a file; None for one that says nothing."""
    match value:
        case str():
            return value.strip() or None
        case float():
            return value if math.isfinite(value) else None
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return plain_value(value.decode(errors="replace"))
        case list() | tuple():
            return [plain for each in value if (plain := plain_value(each)) is not None] or None
        case dict():
            return {str(name): plain for name, each in value.items() if (plain := plain_value(each)) is not None} or None
    return value


def _find_types(facts: Mapping[str, Facts], texts: Sequence[str]) -> None:
    """Make numbers of the texts of columns that hold nothing else, and lists of those with signs between their parts."""
    names = dict.fromkeys(name for known in facts.values() for name in known if name not in texts)
    for name in names:
        holders = [known for known in facts.values() if name in known]
        values = [known[name] for known in holders]
        if all(map(is_number, values)):
            for known in holders:
                known[name] = number_of(known[name])
        elif _LISTS.fullmatch(name.rpartition("_")[2]) and any(_LIST_SIGN in text for text in values):
            for known in holders:
                known[name] = [part.strip() for part in known[name].split(_LIST_SIGN) if part.strip()]
