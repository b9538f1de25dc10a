"""Items from MiniOneRec's info files: lines of identifier, title and item id with tabs between them.

Invariant: the first field of a line is the identifier and the last one the item id; what stands between them, tabs included, is the title.
"""

from collections.abc import Iterator
from pathlib import Path

from drafting.catalog.attributes import TITLE
from drafting.catalog.catalog import CatalogError
from drafting.catalog.json_files import ItemLine
from drafting.catalog.json_values import check_attributes


def info_lines(path: Path) -> Iterator[ItemLine]:
    """The items of an info file.

    Raises:
        CatalogError: a line is no item.
    """
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            where = f"Line {number} of the catalog {path}"
            try:
                identifier, *title, item_id = text.decode().rstrip("\r\n").split("\t")
            except UnicodeDecodeError as error:
                raise CatalogError(f"{where} is not UTF-8 text: {error}.") from error
            except ValueError as error:
                raise CatalogError(f"{where} has no tab: its form is identifier, title and item id, with tabs between them.") from error
            if not item_id.strip():
                raise CatalogError(f"{where} has no item id behind its last tab.")
            line = ItemLine(item_id.strip(), identifier.strip(), title="\t".join(title).strip() or None)
            try:
                check_attributes(line.name, {TITLE: line.title})
            except ValueError as error:
                raise CatalogError(f"{where} can't be used. {error}") from error
            yield line
