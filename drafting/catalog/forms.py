"""The forms in which files hold catalogs, told apart by a file's ending, or else by its first line.

Invariant: a file has one form, and one that may have two is refused with the flag that decides; nothing is read twice to try.
"""

from enum import Enum
from pathlib import Path

from drafting.catalog.artefact import SUFFIX
from drafting.catalog.catalog import CatalogError

# Files that torch writes, which not every process may read: torch takes seconds and hundreds of megabytes to load.
TORCH_SUFFIXES = (".pt", ".pth")
_HEAD_BYTES = 1 << 16


class CatalogForm(Enum):
    """The form of a catalog file."""

    ARTEFACT = "an artefact"
    INDEX = "an index of item to identifier"
    LINES = "JSONL, an item a line"
    INFO = "MiniOneRec's item info: identifier, title and item id, separated by tabs"
    PARQUET = "parquet"
    MATRIX = "a matrix of codes"


_FORM_OF_SUFFIX = {
    SUFFIX: CatalogForm.ARTEFACT,
    ".json": CatalogForm.INDEX,
    # RPG's, ActionPiece's and TIGER's cache of identifiers.
    ".sem_ids": CatalogForm.INDEX,
    ".jsonl": CatalogForm.LINES,
    ".parquet": CatalogForm.PARQUET,
    ".tsv": CatalogForm.INFO,
    **dict.fromkeys((*TORCH_SUFFIXES, ".npy"), CatalogForm.MATRIX),
}


def form_of(path: Path) -> CatalogForm:
    """The form of a file.

    Raises:
        CatalogError: the file can't be read.
    """
    form = _FORM_OF_SUFFIX.get(path.suffix)
    if form is not None:
        return form
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES).lstrip()
    except OSError as error:
        raise CatalogError(f"The catalog {path} cannot be read: {error.strerror}.") from error
    first = head.partition(b"\n")[0]
    return CatalogForm.INFO if b"\t" in first and not first.startswith(b"{") else CatalogForm.LINES


def is_named_as_lines(path: Path) -> bool:
    """True if a file of this name that holds JSONL is read as such."""
    return _FORM_OF_SUFFIX.get(path.suffix, CatalogForm.LINES) is CatalogForm.LINES


def taken_for_lines(path: Path) -> str:
    """What to add to a sentence about a file that was read as JSONL for want of another name, and is none; empty if its name says JSONL."""
    if path.suffix in _FORM_OF_SUFFIX:
        return ""
    return f" It was taken for JSONL, because its name has none of the endings {', '.join(_FORM_OF_SUFFIX)}."
