"""The catalog that a soak serves, as lines of JSONL: items whose names tell their attribute, so that every list can be checked by itself.

Invariant: the number in an item's name decides its group, in every version and for items that are posted as well; and no version lacks any
of the first items, which all histories are made of.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.systems.shapes import SHAPES, make_catalog, make_checkpoint

GROUPS = 4
# What histories begin with: as many as the server lists at once.
READ_ITEMS = 1000
# Each uploaded version leaves out one in so many of the other items.
VARIANTS = 50


def group_of(item_id: str) -> int:
    """The value of an item's attribute `group`."""
    return int(item_id.rpartition("-")[2]) % GROUPS


class CatalogLines:
    """The lines of the whole catalog."""

    def __init__(self, shape: str) -> None:
        """`shape` names one of `benchmarks/systems/shapes.py`."""
        catalog = make_catalog(SHAPES[shape])
        self.names = list(catalog.item_ids)
        self._identifiers = [list(catalog.identifier(index)) for index in range(len(catalog))]
        self._shape, self._catalog = SHAPES[shape], catalog

    def write(self, folder: Path) -> None:
        """Write `model/` and `catalog.jsonl`."""
        (folder / "catalog.jsonl").write_bytes(self.body(range(len(self.names))))
        make_checkpoint(folder / "model", self._shape.target, self._catalog)

    def variant(self, number: int) -> list[int]:
        """Indices of the items of an uploaded version."""
        return [index for index in range(len(self.names)) if index < READ_ITEMS or index % VARIANTS != number % VARIANTS]

    def body(self, indices: Sequence[int]) -> bytes:
        """Some of the lines, as JSONL."""
        return "".join(f"{self._line(index)}\n" for index in indices).encode()

    def identifier(self, index: int) -> list[str]:
        """Tokens of an item."""
        return self._identifiers[index]

    def _line(self, index: int) -> str:
        name = self.names[index]
        return json.dumps({"item_id": name, "identifier": self._identifiers[index], "attributes": {"group": group_of(name)}})
