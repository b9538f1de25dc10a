"""`Reading`: how a file is read as a catalog, whatever its form, and who is told of it."""

from collections.abc import Callable
from dataclasses import dataclass

from drafting.catalog.limits import ReadLimits
from drafting.catalog.pattern import TokenPattern


@dataclass(frozen=True)
class Reading:
    """What every reader of catalogs is given beside the file.

    Attributes:
        pattern: text of the token of an integer code.
        limits: how much the catalog may be.
        on_items: takes the number of items of each batch that has been read.
        on_form: takes a sentence's part about each thing that has been found.
    """

    pattern: TokenPattern
    limits: ReadLimits
    on_items: Callable[[int], object]
    on_form: Callable[[str], object]
