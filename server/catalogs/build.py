"""A process that makes a version of the catalog: reads a file of any form, checks it against the models and writes the artefact.

Invariant: what it refuses leaves no file behind.

Run by `server.catalogs.uploads`: `python -m server.catalogs.build SOURCE ARTEFACT TARGET [DRAFT]`; says in JSON what has become of it.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from server.catalogs.background import be_polite


class Built(msgspec.Struct, frozen=True):
    """What a process has to say at its end.

    Attributes:
        sentence: why there is no artefact; None if there is one.
        items, identifiers, identifier_length: of the catalog.
        content: the catalog's own version, a hash of its contents.
    """

    sentence: str | None = None
    items: int = 0
    identifiers: int = 0
    identifier_length: int = 0
    content: str = ""


def build(source: Path, artefact: Path, target: Path, draft: Path | None) -> Built:
    """Makes the artefact of a catalog for a model."""
    from drafting.catalog.artefact import save_artefact
    from drafting.catalog.loading import load_catalog
    from drafting.errors import SetupError
    from verification.hosts.served_model import ServedModel

    try:
        catalog = ServedModel(target, draft).fit(load_catalog(source)).catalog
        save_artefact(catalog, artefact)
    except SetupError as error:
        # Clients are told this sentence; where the server keeps its files is not for them.
        return Built(str(error).replace(str(source), "file").replace(f"{source.parent}{os.sep}", ""))
    except OSError as error:
        return Built(f"The catalog can't be stored: {error.strerror}.")
    return Built(None, len(catalog), catalog.identifiers, catalog.identifier_length, catalog.version)


def main(arguments: Sequence[str]) -> int:
    """Entry point of the process."""
    be_polite()
    source, artefact, target, *draft = map(Path, arguments)
    sys.stdout.buffer.write(msgspec.json.encode(build(source, artefact, target, draft[0] if draft else None)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
