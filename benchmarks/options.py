"""Options that several commands of the workshop have."""

from pathlib import Path
from typing import Annotated

import typer

from drafting.beam.rule import LONGEST_LIST
from server.commands.values import whole_numbers


def in_a_directory(path: Path | None) -> Path | None:
    """Refuse a file to be written in a directory that is not there, before anything is measured.

    Raises:
        BadParameter: it is in one.
    """
    if path is not None and not (folder := path.absolute().parent).is_dir():
        raise typer.BadParameter(f"there is no directory {folder} to write to.")
    return path


Target = Annotated[Path, typer.Option(help="Directory of the target model.", exists=True, file_okay=False)]
Draft = Annotated[Path, typer.Option(help="Directory of the draft model.", exists=True, file_okay=False)]
CatalogFile = Annotated[Path, typer.Option("--catalog", help="Catalog of the items.", exists=True, dir_okay=False)]
ITEMS_ALONE = "with the items of their histories alone: no kinds, times, profiles or contexts"
_INTERACTIONS = f"Interactions, as for `atspeed train`; the target's test users are asked {ITEMS_ALONE}."
Data = Annotated[Path, typer.Option(help=_INTERACTIONS, exists=True)]
_WHOLE = "Interactions, as for `atspeed train`; the target's test users are asked with all that is known of them."
WholeData = Annotated[Path, typer.Option(help=_WHOLE, exists=True)]
Lengths = Annotated[str, typer.Option("--k", help="List lengths, separated by commas.")]


def list_lengths(text: str) -> list[int]:
    """The numbers of `Lengths`; the command ends with a sentence if there are no such lists."""
    return whole_numbers("--k", text, LONGEST_LIST)
