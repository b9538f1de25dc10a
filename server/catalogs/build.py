"""A background process that makes a version of the catalog: reads a file of any form, checks it against the models, writes the artefact.

Invariant: what it refuses leaves no file behind.
"""

import math
import os
import sys
from pathlib import Path

import msgspec

from server.catalogs.background import answer_order
from server.errors import without_folders


class BuildOrder(msgspec.Struct, frozen=True):
    """The files to read and to write, the directories of the models, and the limits of what is read."""

    source: str
    artefact: str
    target: str
    draft: str | None = None
    base: str | None = None
    draft_base: str | None = None
    max_items: int = sys.maxsize
    max_ratio: float = math.inf


class Built(msgspec.Struct, frozen=True):
    """The answer to a `BuildOrder`.

    Attributes:
        sentence: why there is no artefact; None if there is one.
        storage: True if the artefact can't be written.
        items, identifiers, identifier_length: numbers of items, identifiers and tokens per identifier.
        content: the catalog's own version, a hash of its contents.
        digest: digest of the artefact; empty if there is none.
    """

    sentence: str | None = None
    storage: bool = False
    items: int = 0
    identifiers: int = 0
    identifier_length: int = 0
    content: str = ""
    digest: str = ""


def build(order: BuildOrder) -> Built:
    """Make the artefact of a catalog for a model."""
    # The API process imports this file too, and must not load the model libraries.
    from drafting.catalog.artefact import SUFFIX, save_artefact
    from drafting.catalog.checks import check_contents
    from drafting.catalog.limits import ReadLimits
    from drafting.catalog.loading import load_catalog
    from drafting.errors import SetupError
    from verification.hosts.served_model import ServedModel

    source, target = Path(order.source), Path(order.target)
    draft, base, draft_base = (None if path is None else Path(path) for path in (order.draft, order.base, order.draft_base))
    try:
        model = ServedModel(target, draft=draft, base=base, draft_base=draft_base)
        catalog = load_catalog(source, check=True, limits=ReadLimits(order.max_items, order.max_ratio))
        if source.suffix == SUFFIX:
            check_contents(catalog)
        catalog = model.fit(catalog).catalog
        digest = save_artefact(catalog, Path(order.artefact))
    except SetupError as error:
        # Clients are told this sentence; where the server keeps its files is not for them.
        told = str(error).replace(str(source), "file").replace(f"{source.parent}{os.sep}", "")
        return Built(without_folders(told, target, draft, base, draft_base))
    except OSError as error:
        return Built(f"The catalog can't be stored: {error.strerror}.", storage=True)
    return Built(
        None,
        items=len(catalog),
        identifiers=catalog.identifiers,
        identifier_length=catalog.identifier_length,
        content=catalog.version,
        digest=digest,
    )


if __name__ == "__main__":
    answer_order(BuildOrder, build)
