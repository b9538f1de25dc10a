"""Names and titles of items in the order of the rows of a matrix: embeddings, or codes.

Invariant: the list has a name for each row, because a matrix says nothing of whom its rows belong to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from drafting.catalog.catalog import CatalogError
from drafting.errors import check_file


class _Item(msgspec.Struct):
    item_id: str | int
    title: str | None = None


@dataclass(frozen=True)
class ItemList:
    """Item ids in order, and the titles of those that have one."""

    names: Sequence[str]
    titles: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "ItemList":
        """Read a `.jsonl` of `{"item_id", "title"?}`, or a text file with one id a line.

        Raises:
            CatalogError: the file can't be read, or a line is no item.
        """
        check_file(path, "The file of items", CatalogError)
        try:
            lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise CatalogError(f"The items {path} cannot be read: {error}.") from error
        if path.suffix != ".jsonl":
            return cls([line.strip() for line in lines])
        decoder = msgspec.json.Decoder(_Item)
        names, titles = [], {}
        for number, line in enumerate(lines, start=1):
            try:
                item = decoder.decode(line)
            except msgspec.DecodeError as error:
                raise CatalogError(f"Item {number} of {path} is malformed: {error}.") from error
            names.append(str(item.item_id))
            if item.title is not None:
                titles[names[-1]] = item.title
        return cls(names, titles)
