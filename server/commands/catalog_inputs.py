"""What `atspeed catalog build` makes identifiers from: the items, and a vector of each."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from drafting.alignment.data.record import ITEMS_FILE
from server.commands.terminal import fail

if TYPE_CHECKING:
    from drafting.alignment.data.interactions import Split
    from drafting.array_types import FloatArray
    from drafting.catalog.item_list import ItemList
    from drafting.embeddings.sources import Sources

# Lists of items that are catalogs already.
_CATALOGS = (".json", ".parquet", ".catalog")


def items_file(data: Path | None) -> Path:
    """The list of items in a data directory, where no other is given; the command ends where there is none."""
    if data is None or not (data / ITEMS_FILE).is_file():
        fail(f"List the items with --items FILE{'' if data is None else f', or as {ITEMS_FILE} in {data}'}.")
    return data / ITEMS_FILE


def read_items(path: Path) -> "ItemList":
    """The items of a list, or of a catalog.

    Raises:
        SetupError: they can't be read.
    """
    from drafting.catalog.item_list import ItemList
    from drafting.catalog.loading import load_catalog

    if path.suffix not in _CATALOGS:
        return ItemList.read(path)
    catalog = load_catalog(path)
    known = [catalog.known_attributes(index) for index in range(len(catalog))]
    return ItemList(
        list(catalog.item_ids), {name: [each.get(name) for each in known] for name in sorted({n for each in known for n in each})}
    )


def read_matrix(embeddings: Path, items: Path, rows: int) -> "FloatArray":
    """The embeddings of a file, one of each of the items.

    Raises:
        CatalogError: they can't be read.
    """
    from drafting.catalog.catalog import CatalogError
    from drafting.catalog.code_matrix import load_array
    from drafting.errors import check_file

    check_file(embeddings, "The matrix", CatalogError)
    matrix: FloatArray = load_array(embeddings, "The matrix")
    if matrix.ndim != 2 or len(matrix) != rows:
        fail(f"{embeddings} has the shape {matrix.shape}, but {items} lists {rows} items: there must be one row per item.")
    return matrix


def embedded(parts: "Split", items: "ItemList", sources: "Sources") -> "FloatArray":
    """The embeddings of a data directory's items.

    Raises:
        SetupError: as `embed_items`.
    """
    from tqdm import tqdm

    from drafting.embeddings.sources import embed_items
    from drafting.neighbours.build import ease_refusal

    if sources.text_weight < 1 and (refusal := ease_refusal(len(items.names))):
        typer.echo(f"{refusal}: what users met is embedded by plain co-occurrence, from which targets learn less.", err=True)
    with tqdm(desc="reading texts", unit="text", disable=sources.encoder is None) as bar:
        matrix = embed_items(parts, items, sources, bar.update)
    if unknown := int((~matrix.any(axis=1)).sum()):
        typer.echo(
            f"{unknown:,} items have neither an interaction that counts nor a text, or none that ties them to others: their place among "
            "the others says nothing.",
            err=True,
        )
    return matrix
