"""A background process that makes the next version of the catalog: the one that is served, and new items behind its own.

Invariant: the items are placed in the very catalog that is served, or not at all; what is refused leaves no file behind. The tokens of
identifiers that clients bring are judged by the engine, which knows the model's tokenizer: this process starts in a fraction of a second
because it loads neither.
"""

import sys
from pathlib import Path

import msgspec

from drafting.catalog.artefact import save_artefact
from drafting.catalog.catalog import CatalogError
from drafting.catalog.codebooks import CodebookError, Codebooks
from drafting.catalog.loading import load_catalog
from drafting.catalog.placement import Collision, NewItem, PlacedItem, TakenError, add_items
from server.catalogs.background import answer_order


class PlaceOrder(msgspec.Struct, frozen=True):
    """Where everything is, and the items to add.

    Attributes:
        base: the file of the catalog that is served.
        version: version of its contents.
        artefact: path of the next version.
        codebooks: their file; None if there are none.
        added_at: time of adding, seconds since 1970.
        max_items: most items that the catalog may have with them.
    """

    base: str
    version: str
    artefact: str
    codebooks: str | None
    items: list[NewItem]
    collision: Collision
    added_at: int
    max_items: int = sys.maxsize


class Placed(msgspec.Struct, frozen=True):
    """The answer to a `PlaceOrder`.

    Attributes:
        sentence: why there is no artefact; None if there is one.
        storage: True if the artefact can't be written.
        digest: digest of the artefact; empty if there is none.
        taken: True if a name or an identifier belongs to another item.
        items: the new items with their identifiers.
    """

    sentence: str | None = None
    taken: bool = False
    items: list[PlacedItem] = []
    storage: bool = False
    digest: str = ""


def place(order: PlaceOrder) -> Placed:
    """Make the artefact."""
    # Where the server keeps its files is not for clients, so what these two say of theirs is not passed on.
    try:
        catalog = load_catalog(Path(order.base), check=True)
        codebooks = None if order.codebooks is None else Codebooks.load(Path(order.codebooks))
    except (CatalogError, CodebookError):
        return Placed("The catalog that is served, or its codebooks, can't be read any more.")
    if catalog.version != order.version:
        return Placed("The file of the catalog that is served has changed: bring it as a version and activate that.")
    if len(catalog) + len(order.items) > order.max_items:
        return Placed(f"With these the catalog would have more than the {order.max_items:,} items that this server allows.")
    try:
        grown, placed = add_items(catalog, order.items, order.collision, codebooks, order.added_at)
        digest = save_artefact(grown, Path(order.artefact))
    except TakenError as error:
        return Placed(str(error), taken=True)
    except CatalogError as error:
        return Placed(str(error))
    except OSError as error:
        return Placed(f"The catalog can't be stored: {error.strerror}.", storage=True)
    return Placed(items=placed, digest=digest)


if __name__ == "__main__":
    answer_order(PlaceOrder, place)
