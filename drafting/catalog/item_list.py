"""Names, titles and attributes of items in the order of the rows of a matrix: embeddings, or codes.

Invariant: the list has a name for each row, because a matrix does not say which items its rows belong to; and what a catalog does not take
is refused with its line.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from drafting.catalog.attributes import TITLE
from drafting.catalog.catalog import CatalogError
from drafting.catalog.json_values import MAX_ATTRIBUTES, check_attributes, too_many
from drafting.errors import check_file

# What a line of a catalog has beside these is an attribute here.
ITEM_KEY, _ATTRIBUTES, _CODES = "item_id", "attributes", ("identifier", "codes")
RESERVED = (_ATTRIBUTES, *_CODES)
# An id may stand in braces, too, as a GUID does.
_OBJECT = re.compile(r'\s*\{\s*"')


@dataclass(frozen=True)
class ItemList:
    """Items in order.

    Attributes:
        names: their ids.
        attributes: by name (`title` is one of them), a value for each item; None for an item without it.
    """

    names: Sequence[str]
    attributes: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "ItemList":
        """Read JSONL of `{"item_id", "title"?, …}`, whatever its ending, or a text file with one id a line.

        All other fields of a line are attributes, as are those of an object `attributes`, which lines of a catalog have.

        Raises:
            CatalogError: the file can't be read, or is a table, or a line is no item.
        """
        check_file(path, "The file of items", CatalogError)
        try:
            lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise CatalogError(f"The items {path} cannot be read: {error}.") from error
        if path.suffix != ".jsonl" and not (lines and _OBJECT.match(lines[0])):
            return cls(_ids(path, lines))
        names: list[str] = []
        columns: dict[str, list[Any]] = {}
        for number, line in enumerate(lines, start=1):
            try:
                name, attributes = _item(line)
            except (ValueError, RecursionError) as error:
                raise CatalogError(f"Item {number} of {path} is malformed: {str(error).rstrip('.')}.") from error
            for key, value in attributes.items():
                column = columns.setdefault(key, [])
                column += [None] * (len(names) - len(column))
                column.append(value)
            if len(columns) > MAX_ATTRIBUTES:
                raise CatalogError(f"Item {number} of {path} has one name of attributes too many. {too_many(len(columns))}")
            names.append(name)
        return cls(names, {key: column + [None] * (len(names) - len(column)) for key, column in columns.items()})

    def attributes_of(self, rows: slice) -> dict[str, Sequence[Any]]:
        """The attributes of some items."""
        return {name: column[rows] for name, column in self.attributes.items()}


def _ids(path: Path, lines: Sequence[str]) -> list[str]:
    """The ids of a file with one a line.

    Raises:
        CatalogError: there is more than an id in a line.
    """
    ids = [line.strip() for line in lines]
    separators = ("\t", ",") if path.suffix == ".csv" else ("\t",)
    if ids and any(sign in ids[0] for sign in separators):
        raise CatalogError(f"{path} is a table of several columns: list items as JSONL of {ITEM_KEY} and {TITLE}, or one id a line.")
    return ids


def _item(line: str) -> tuple[str, dict[str, Any]]:
    """The name and the attributes of a line.

    Raises:
        ValueError: it is no item, or has a value that a catalog does not take.
    """
    fields = msgspec.json.decode(line, type=dict[str, Any])
    name = fields.pop(ITEM_KEY, None)
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise ValueError(f"it needs a text or a whole number as its {ITEM_KEY!r}")
    more = fields.pop(_ATTRIBUTES, None)
    attributes = {**fields, **(more if isinstance(more, dict) else {})}
    for key in _CODES:
        attributes.pop(key, None)
    if not isinstance(attributes.get(TITLE), str | None):
        raise ValueError(f"its {TITLE} must be a text")
    attributes = {key: value for key, value in attributes.items() if value is not None}
    check_attributes(str(name), attributes)
    return str(name), attributes
