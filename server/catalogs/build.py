"""A background process that makes a version of the catalog: reads a file of any form, checks it against the models, writes the artefact.

Invariant: what it refuses leaves no file behind.
"""

import os
from pathlib import Path

import msgspec

from server.catalogs.background import answer_order


class BuildOrder(msgspec.Struct, frozen=True):
    """The files to read and to write, and the directories of the models."""

    source: str
    artefact: str
    target: str
    draft: str | None = None


class Built(msgspec.Struct, frozen=True):
    """The answer to a `BuildOrder`.

    Attributes:
        sentence: why there is no artefact; None if there is one.
        items, identifiers, identifier_length: numbers of items, identifiers and tokens per identifier.
        content: the catalog's own version, a hash of its contents.
    """

    sentence: str | None = None
    items: int = 0
    identifiers: int = 0
    identifier_length: int = 0
    content: str = ""


def build(order: BuildOrder) -> Built:
    """Make the artefact of a catalog for a model."""
    # The API process imports this file too, and must not load the model libraries.
    from drafting.catalog.artefact import save_artefact
    from drafting.catalog.loading import load_catalog
    from drafting.errors import SetupError
    from verification.hosts.served_model import ServedModel

    source = Path(order.source)
    try:
        model = ServedModel(Path(order.target), None if order.draft is None else Path(order.draft))
        catalog = model.fit(load_catalog(source)).catalog
        save_artefact(catalog, Path(order.artefact))
    except SetupError as error:
        # Clients are told this sentence; where the server keeps its files is not for them.
        return Built(str(error).replace(str(source), "file").replace(f"{source.parent}{os.sep}", ""))
    except OSError as error:
        return Built(f"The catalog can't be stored: {error.strerror}.")
    return Built(None, len(catalog), catalog.identifiers, catalog.identifier_length, catalog.version)


if __name__ == "__main__":
    answer_order(BuildOrder, build)
